"""Processes whose peers do not come or are lost end soon, with one sentence and no stack."""

import io
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from rmgl_jax.coordination_log import REPORTED, filter_lines
from tests.test_pods import CONNECTION_NOTE, free_port

pytestmark = pytest.mark.network


def filtered(log):
    output = io.BytesIO()
    filter_lines(io.BytesIO(log.encode()), output)
    return output.getvalue().decode()


def message(level, file, text):
    return f"{level}1124 13:21:21.348033    9955 {file}:80] {text}\n"


OTHER = message("W", "xla.cc", "slow\nto compile") + "[Gloo] Rank 0 is connected\n"
ERROR = message("E", "coordination_service.cc", "Use error polling:\n1\n")
STACK = "*** Check failure stack trace: ***\n    @ 0x7fc7 absl::SendToLog()\n"


def test_filter_lines_passes_other_messages():
    assert filtered(OTHER) == OTHER
    assert filtered(OTHER + ERROR + OTHER) == OTHER + OTHER + ERROR
    assert filtered("") == ""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("DEADLINE_EXCEEDED\n\nRPC: /x.CoordinationService/RegisterTask", "--distributed.start-"),
        ("UNAVAILABLE: Either the leader task was preempted/died", "process 0"),
        ("unhealthy (stopped sending heartbeats):\n3\nThe tasks have crashed.", "process 3"),
        ("something new", "another process"),
    ],
)
def test_filter_lines_explains_a_fatal_error_in_one_line(text, named):
    fatal = message("F", "client.h", f"Terminating process. absl::Status: {text}") + STACK
    found = filtered(OTHER + ERROR + fatal)
    assert found.startswith(OTHER + "Error: ")
    (sentence,) = found.removeprefix(OTHER).splitlines()
    assert named in sentence
    # The process has printed a sentence itself.
    assert filtered(OTHER + ERROR + fatal + REPORTED.decode() + fatal) == OTHER


@pytest.fixture
def start():
    """Starts processes; all are killed in the end."""
    with ExitStack() as stack:

        def start(*arguments):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.pod_process", *map(str, arguments)],
                    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


def sentence(process):
    """Output of an ended process, without JAX's notes of connections."""
    printed = process.communicate(timeout=60)[0].splitlines()
    found = [line for line in printed if line != "connected" and not CONNECTION_NOTE.search(line)]
    assert len(found) == 1, printed
    return found[0]


def test_process_ends_if_its_peer_does_not_come(start):
    process = start(0, free_port(), 1, "wait")
    assert "--distributed.start-timeout" in sentence(process)
    assert process.returncode != 0


@pytest.mark.parametrize(
    ("mode", "victim", "named"),
    [("meet", 1, "another process"), ("wait", 1, "process 1"), ("wait", 0, "process 0")],
)
def test_process_ends_if_its_peer_is_killed(mode, victim, named, start):
    port = free_port()
    processes = [start(number, port, 60, mode) for number in (0, 1)]
    for process in processes:
        while (line := process.stdout.readline()) != "connected\n":
            assert CONNECTION_NOTE.search(line)
    processes[victim].send_signal(signal.SIGKILL)
    survivor = processes[1 - victim]
    assert named in sentence(survivor)
    assert survivor.returncode != 0


@pytest.mark.parametrize("mode", ["fail alone", "fail together"])
def test_process_ends_if_its_peer_fails(mode, start):
    port = free_port()
    processes = [start(number, port, 60, mode) for number in (0, 1)]
    first, second = map(sentence, processes)
    assert second == "Error: a problem of process 1"
    assert ("another process" if mode == "fail alone" else "a problem of process 0") in first
    assert [process.returncode for process in processes] == [1, 1]
