"""Runs functions in forked processes that are killed, limited or timed.

The parent has imported the commands and started no threads, so that a command costs a fork instead
of three seconds of imports.
"""

import contextlib
import ctypes
import faulthandler
import fcntl
import importlib
import multiprocessing
import os
import random
import re
import resource
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from data_prep.errors import ExpectedError, is_expected

_FORK = multiprocessing.get_context("fork")
_OPERATIONS = {
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.truncate",
    "os.link",
    "os.symlink",
}
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n((?:[ \t].*\n)*)(.*)")
_STACK = re.compile(r"\(most recent call first\):\n((?:  File .*\n){1,4})")
TIMEOUT = 120.0
"""Seconds after which a command hangs."""
MEMORY = 6 << 30
"""Bytes of writable memory of a command. Address space is no measure: XLA reserves far more."""


@dataclass(frozen=True)
class Fault:
    """A signal, or a full disk, at one moment of a process.

    Attributes:
        sent: the signal to send; None makes the disk full.
        operation: number of the file operation (a file opened for writing, renamed, removed; a
            directory made or removed) before which it happens.
        delay: seconds between that operation and the signal, which is sent by a thread.
        second: time of the signal after the start, instead of an operation.
        room: bytes beyond which no file grows, from the operation on.
    """

    sent: signal.Signals | None = None
    operation: int | None = None
    delay: float = 0.0
    second: float | None = None
    room: int | None = None

    def __str__(self) -> str:
        what = self.sent.name if self.sent else f"disk full at {self.room} bytes"
        if self.second is not None:
            return f"{what} after {self.second:.2f} s"
        later = f" + {1000 * self.delay:.0f} ms" if self.delay else ""
        return f"{what} at operation {self.operation}{later}"


@dataclass(frozen=True)
class Ended:
    """The end of a process."""

    status: int | None
    """Exit status, or minus the number of the signal that ended it; None if it hung."""
    output: str
    """Standard output and standard error."""
    seconds: float
    operations: int
    """File operations, if it was not killed."""

    @property
    def defect(self) -> str | None:
        """The outcome that no input or fault excuses: a hang, a traceback or a crash."""
        if self.status is None:
            return "hang"
        crashes = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE}
        if -self.status in crashes:
            return "crash"
        return "traceback" if "Traceback (most recent call last)" in self.output else None

    @property
    def last_words(self) -> str:
        """The place and the error of the first traceback, or the end of the output."""
        if stack := _STACK.search(self.output):
            return " ".join(stack[1].split())
        found = _TRACEBACK.search(self.output)
        if found:
            *_, place = found[1].split("  File ")
            return f"{found[2][:300]} at {' '.join(place.split())[:200]}"
        return " ".join(self.output.split())[-400:]


@dataclass
class Started:
    """A running process."""

    process: Any
    pipe: int
    """Reading end of its output: a file would meet the full disk."""
    directory: Path
    fault: Fault | None
    began: float = field(default_factory=time.monotonic)

    def _wait(self, seconds: float) -> None:
        """Waits for the end. `join` would wait without a limit if the process became another."""
        until = time.monotonic() + seconds
        while self.process.is_alive() and time.monotonic() < until:
            time.sleep(0.005)

    def finish(self, timeout: float = TIMEOUT) -> Ended:
        """Sends the signal of the fault if it has a time, and waits for the end."""
        if self.fault and self.fault.sent and self.fault.second is not None:
            self._wait(self.began + self.fault.second - time.monotonic())
            if self.process.is_alive():
                os.kill(self.process.pid, self.fault.sent)
        self._wait(timeout)
        hung = self.process.is_alive()
        if hung:
            os.kill(self.process.pid, signal.SIGABRT)  # faulthandler prints the stacks.
            self._wait(5)
        seconds = time.monotonic() - self.began
        # Processes that it started and left behind.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()
        output = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.pipe, 1 << 20):
                output += part
        os.close(self.pipe)
        counted = _counted(self.directory, self.process.pid)
        operations = int(counted.read_text() or 0) if counted.exists() else 0
        counted.unlink(missing_ok=True)
        status = None if hung else self.process.exitcode
        return Ended(status, output.decode(errors="replace"), seconds, operations)


def start(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    directory: Path,
    fault: Fault | None = None,
) -> Started:
    """Starts a function in a process of its own, in `directory`.

    Expected errors end it with status 1 and one line, as they end a command.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
    process = _FORK.Process(target=_child, args=(function, arguments, directory, fault, writing))
    process.start()
    os.close(writing)
    return Started(process, reading, directory, fault)


def run(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    directory: Path,
    fault: Fault | None = None,
    timeout: float = TIMEOUT,
) -> Ended:
    """Runs a function in a process of its own to its end."""
    return start(function, arguments, directory, fault).finish(timeout)


def command(module: str, *words: str) -> None:
    """Runs a command line in this process: `rmgl_jax` or a run card."""
    sys.argv = [module, *words]
    if module == "rmgl_jax":
        from rmgl_jax import cli

        cli.run()
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def real_command(module: str, *words: str) -> None:
    """Runs a command line as a new Python process, which replaces this one."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    os.execve(sys.executable, [sys.executable, "-m", module, *words], environment)


def preload() -> None:
    """Imports what commands import; starts no JAX backend and no threads."""
    for module in (
        "rmgl_jax.cli",
        "rmgl_jax.experiment.train_command",
        "rmgl_jax.experiment.run",
        "rmgl_jax.experiment.sweep",
        "rmgl_jax.experiment.evaluate",
        "rmgl_jax.experiment.cross_dataset",
        "rmgl_jax.gallery.embed_command",
        "rmgl_jax.gallery.embed_files",
        "rmgl_jax.gallery.command",
        "rmgl_jax.gallery.actions",
        "rmgl_jax.report.page",
        "rmgl_jax.report.command",
        "data_prep.command",
        "data_prep.cuhk03_np.cuhk03_np_dataset_builder",
        "data_prep.folder.folder_dataset_builder",
        "data_prep.msmt17.msmt17_dataset_builder",
        "data_prep.market1501.market1501_dataset_builder",
        "data_prep.synthetic.synthetic_dataset_builder",
        "tensorboardX.record_writer",
        "tensorboardX.proto.event_pb2",
        "matplotlib.figure",
    ):
        importlib.import_module(module)


def _child(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    directory: Path,
    fault: Fault | None,
    output: int,
) -> None:
    os.setsid()
    # It dies with the campaign (PR_SET_PDEATHSIG).
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    sys.stdout, sys.stderr = _text(1), _text(2)
    faulthandler.enable(2)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.environ |= {"COLUMNS": "200", "HOME": str(directory.parent)}
    random.seed()
    os.chdir(directory)
    counter = _Operations(directory, fault)
    sys.addaudithook(counter)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function(*arguments)
    except (ExpectedError, OSError) as error:
        if not is_expected(error):
            raise
        print(f"Error: {error}")
        sys.exit(1)
    finally:
        counter.stop()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        _counted(directory, os.getpid()).write_text(str(counter.count))


def _text(descriptor: int) -> IO[str]:
    return os.fdopen(
        descriptor, "w", buffering=1, closefd=False, encoding="utf-8", errors="replace"
    )


def _counted(directory: Path, process: int) -> Path:
    return directory.with_name(f".{directory.name}.{process}.operations")


class _Operations:
    """Counts file operations of Python code below a directory, and causes the fault at one."""

    def __init__(self, directory: Path, fault: Fault | None) -> None:
        self.root, self.fault, self.count, self.stopped = str(directory), fault, 0, False

    def stop(self) -> None:
        self.stopped = True

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.stopped or not self._counts(event, arguments):
            return
        self.count += 1
        if self.fault and self.count == self.fault.operation:
            self._strike(self.fault)

    def _counts(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return False
        elif event not in _OPERATIONS:
            return False
        path = arguments[0]
        if isinstance(path, int):
            return False
        name = os.fsdecode(path)
        return not name.startswith("/") or name.startswith(self.root)

    def _strike(self, fault: Fault) -> None:
        if fault.sent is None:
            assert fault.room is not None
            limit = (fault.room, resource.RLIM_INFINITY)
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        elif fault.delay:
            number = fault.sent
            timer = threading.Timer(fault.delay, lambda: os.kill(os.getpid(), number))
            timer.daemon = True
            timer.start()
        else:
            os.kill(os.getpid(), fault.sent)
