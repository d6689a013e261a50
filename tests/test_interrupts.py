"""Ctrl-C ends a command with one line and status 130, whatever it is doing."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rmgl_jax import interrupts

ROOT = Path(__file__).parents[1]


def start(program, directory):
    """Starts a program, and returns it once it has printed `ready`."""
    path = directory / "program.py"
    path.write_text(program)
    process = subprocess.Popen(
        [sys.executable, path],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{directory}"},
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def interrupt(program, directory, seconds=20):
    """Presses Ctrl-C once the program is ready; returns status and what it printed after that."""
    process = start(program, directory)
    process.send_signal(signal.SIGINT)
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out + err


REPORTED = """
import io, threading, time
from rich.console import Console
from rmgl_jax import interrupts
from rmgl_jax.runtime import report_errors

def ready():
    print("ready", flush=True)

with report_errors(Console()):
"""

CALLBACK = """
    class Resource:
        def __del__(self):
            ready()
            time.sleep(60)
    resource = Resource()
    del resource
    time.sleep(60)
"""
CONVERTED = """
    ready()
    try:
        time.sleep(60)
    except BaseException as error:
        raise RuntimeError("INTERNAL: a callback failed") from error
"""
SWALLOWED = """
    ready()
    try:
        time.sleep(60)
    except BaseException:
        pass
"""


@pytest.mark.parametrize("body", [CALLBACK, CONVERTED, SWALLOWED])
def test_ctrl_c_is_not_swallowed_by_callbacks(body, tmp_path):
    assert interrupt(REPORTED + body, tmp_path) == (130, "Interrupted.\n")


STUCK = """
import hashlib, threading
from rmgl_jax import interrupts

def work():
    threading.Timer(0.3, lambda: print("ready", flush=True)).start()
    # Like a compiler, it runs no Python code for a long time.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)

with interrupts.watch(seconds=0.5):
    work()
"""


def test_ctrl_c_ends_native_code_within_the_time(tmp_path):
    assert interrupt(STUCK, tmp_path) == (130, "Interrupted.\n")


CLEANING = """
import time
from rmgl_jax import interrupts

with interrupts.watch(seconds=300):
    try:
        print("ready", flush=True)
        time.sleep(300)
    finally:
        print("cleaning", flush=True)
        time.sleep({seconds})
        print("clean", flush=True)
"""


def interrupt_twice(program, directory, seconds):
    """Presses Ctrl-C again some seconds after the program began to clean up."""
    process = start(program, directory)
    try:
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "cleaning\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def test_second_ctrl_c_ends_at_once(tmp_path):
    program = CLEANING.format(seconds=300)
    assert interrupt_twice(program, tmp_path, 1.5) == (130, "", "Interrupted.\n")


def test_one_ctrl_c_that_arrives_twice_lets_the_program_clean_up(tmp_path):
    """As from the terminal and from a parent."""
    status, out, err = interrupt_twice(CLEANING.format(seconds=1), tmp_path, 0.1)
    assert out == "clean\n", err
    assert status != 0


BUSY = """
import hashlib, threading
from rmgl_jax import interrupts

with interrupts.watch(seconds=300):
    try:
        threading.Timer(0.3, lambda: print("ready", flush=True)).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
    finally:
        print("clean", flush=True)
"""


def test_ctrl_c_during_native_code_lets_the_program_clean_up(tmp_path):
    """It is noted at once, and Python's handler runs seconds later."""
    start = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)
    rounds = int(1_000_000 * 3 / (time.perf_counter() - start))
    status, printed = interrupt(BUSY.format(rounds=rounds), tmp_path, seconds=120)
    assert "clean\n" in printed
    assert status != 0


IMPORTING = """
from pathlib import Path
from rmgl_jax import cli

Path("slow_command.py").write_text('''
import time
print("ready", flush=True)
try:
    time.sleep(60)
except BaseException:
    pass
''')
cli.COMMANDS["slow"] = cli.Command("slow_command", "")
cli.main(["slow"])
"""


def test_ctrl_c_ends_an_import_at_once(tmp_path):
    assert interrupt(IMPORTING, tmp_path) == (130, "Interrupted.\n")


def test_run_cards_are_watched_from_their_first_import(tmp_path):
    (tmp_path / "rich.py").write_text("import time\nprint('ready', flush=True)\ntime.sleep(60)\n")
    program = (
        "import os, sys\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'experiments.synthetic_rmgl'])"
    )
    assert interrupt(program, tmp_path) == (130, "Interrupted.\n")


def test_watch_leaves_the_process_as_it_was():
    def state():
        return signal.getsignal(signal.SIGINT), sys.unraisablehook, threading.excepthook

    before = state()
    with interrupts.watch():
        assert state() != before
        with interrupts.watch(), interrupts.allow(3.0):
            pass
    assert state() == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not interrupts.requested()


def test_watch_leaves_other_handlers_alone():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts.watch():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_after_the_work_of_a_command_gets_one_line(tmp_path):
    """Between the last statement of a command and the end of its process."""
    program = """
import sys, time
from rmgl_jax import cli

sys.argv = ["rmgl", "--version"]
cli.run()
print("ready", flush=True)
time.sleep(30)
"""
    path = tmp_path / "program.py"
    path.write_text(program)
    process = subprocess.Popen(
        [sys.executable, path],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.stdout.readline() != "ready\n":
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == interrupts.STATUS
    assert errors == "Interrupted.\n"
