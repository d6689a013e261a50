"""Set-up of a command-line process: JAX, logging, and expected errors printed in one line."""

import contextlib
import inspect
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import jax
from absl import logging as absl_logging
from rich.console import Console

from data_prep.errors import ExpectedError, InputError, is_expected
from data_prep.files import cache_directory
from data_prep.progress import printable, replace_unprintable
from rmgl_jax import coordination_log, interrupts
from rmgl_jax.cpu import keep_freed_memory

_LONGEST = 86_400
"""Longest timeout in seconds."""
_SECONDS_TO_LEAVE = 10.0
"""Seconds that a process waits for the others after an error."""


@dataclass(frozen=True)
class DistributedOptions:
    """Training on several processes (hosts); see docs/pods.md."""

    enabled: bool = False
    """Call `jax.distributed.initialize`. TPU pods and Slurm need no other option."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where no scheduler provides it."""
    processes: int | None = None
    """Number of processes, with `coordinator`."""
    process: int | None = None
    """Index of this process, from 0, with `coordinator`."""
    start_timeout: int = 300
    """Seconds to wait for the other processes at the start."""
    heartbeat_timeout: int = 100
    """Seconds without a sign of another process after which this one ends too."""

    def __post_init__(self) -> None:
        given = [
            f"--distributed.{name}"
            for name in ("coordinator", "processes", "process")
            if getattr(self, name) is not None
        ]
        if given and not self.enabled:
            raise InputError(f"{', '.join(given)} requires --distributed.enabled.")
        if self.coordinator is not None:
            if len(given) < 3:
                raise InputError(
                    "--distributed.coordinator requires --distributed.processes and "
                    "--distributed.process."
                )
            if not re.fullmatch(r".+:\d{1,5}", self.coordinator):
                raise InputError(
                    f"--distributed.coordinator must be HOST:PORT, got {self.coordinator}."
                )
        if self.processes is not None and not 0 <= (self.process or 0) < self.processes:
            raise InputError(
                "--distributed.process must be at least 0 and less than --distributed.processes, "
                f"got {self.process} of {self.processes}."
            )
        for name in ("start_timeout", "heartbeat_timeout"):
            if not 1 <= getattr(self, name) <= _LONGEST:
                flag = name.replace("_", "-")
                raise InputError(
                    f"--distributed.{flag} must be 1 to {_LONGEST} s, got {getattr(self, name)}."
                )


def start_jax(options: DistributedOptions) -> None:
    """Configures host memory and the compilation cache, and joins the other processes if any."""
    keep_freed_memory()
    enable_compilation_cache()
    if options.enabled:
        _connect(options)


def _connect(options: DistributedOptions) -> None:
    """Connects the processes of a run.

    Raises:
        InputError: no scheduler says which processes there are, the port is in use, or their
            numbers of devices differ.
    """
    _filter_standard_error()
    try:
        jax.distributed.initialize(
            options.coordinator,
            options.processes,
            options.process,
            initialization_timeout=options.start_timeout,
            heartbeat_timeout_seconds=options.heartbeat_timeout,
            # Process 0 may work on alone at the end. Heartbeats tell that it is alive.
            shutdown_timeout_seconds=_LONGEST,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"The processes of the run cannot be connected: {error}") from error
    counts = [len(jax.local_devices(process)) for process in range(jax.process_count())]
    if len(set(counts)) > 1:
        raise InputError(
            f"The processes of the run must have the same number of devices, got {counts}."
        )


def _filter_standard_error() -> None:
    """Sends what libraries write to standard error through `coordination_log`.

    Python's own `sys.stderr` stays as it is.
    """
    original = os.dup(2)
    command = [sys.executable, "-I", "-S", coordination_log.__file__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=original)
    assert process.stdin is not None
    os.dup2(process.stdin.fileno(), 2)
    process.stdin.close()
    sys.stderr = os.fdopen(original, "w", buffering=1, errors="backslashreplace")


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the second start of a program takes seconds."""
    # Not every version of jax declares the attribute.
    if not cast(Any, jax.config).jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "jax"))


@contextlib.contextmanager
def report_errors(console: Console, debug: bool = False) -> Iterator[None]:
    """Prints expected errors in one line and exits with status 1.

    Expected are `ExpectedError`s and full, read-only or forbidden storage. Anything else is a bug
    and keeps its traceback; with `debug` every error does. Ctrl-C exits with status 130, within a
    bounded time; see `rmgl_jax.interrupts`.
    """
    replace_unprintable()
    with interrupts.watch():
        try:
            yield
        except BaseException as error:
            # Callbacks of compilers turn a KeyboardInterrupt into errors of their own.
            interrupted = isinstance(error, KeyboardInterrupt) or interrupts.requested()
            is_lost = isinstance(error, Exception) and _is_peer_lost(error)
            expected = isinstance(error, ExpectedError | OSError) and is_expected(error)
            if debug or not (interrupted or is_lost or expected):
                raise
            if interrupted:
                _exit_interrupted(console, error)
            message = (
                "Stopped, because another process of the run has ended or cannot be reached "
                f"({' '.join(str(error).split())})."
                if is_lost
                else str(error)
            )
            console.print("[bold red]Error:[/]", end=" ")
            console.print(printable(message, "\n"), markup=False, highlight=False)
            if jax.distributed.is_initialized():
                _leave_others(1, 0 if is_lost else _SECONDS_TO_LEAVE)
            sys.exit(1)
        if interrupts.requested():  # Something swallowed it.
            _exit_interrupted(console)


def _exit_interrupted(console: Console, error: BaseException | None = None) -> NoReturn:
    reason = str(error) if isinstance(error, KeyboardInterrupt) else ""
    if not interrupts.said():
        console.print(reason or "Interrupted.", markup=False, highlight=False)
    if jax.distributed.is_initialized():
        _leave_others(interrupts.STATUS, _SECONDS_TO_LEAVE)
    sys.exit(interrupts.STATUS)


def _leave_others(status: int, seconds: float) -> None:
    """Ends this process after some time, if JAX then still waits for others that wait for it."""
    sys.stdout.flush()
    os.write(2, coordination_log.REPORTED)
    if seconds == 0:
        os._exit(status)
    timer = threading.Timer(seconds, os._exit, [status])
    timer.daemon = True
    timer.start()


def _is_peer_lost(error: Exception) -> bool:
    """True for errors of collectives whose connection to another process broke."""
    return jax.distributed.is_initialized() and re.search(r"Gloo|NCCL", str(error)) is not None


def silence_loggers() -> None:
    """Silences the informational logs of Orbax and TFDS, and asyncio's echoes of their errors."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # When Orbax cannot read or write one array it drops the tasks of all others, and Python would
    # report each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    report = sys.unraisablehook

    def report_others(unraisable: Any) -> None:
        closed = "Event loop is closed" in str(unraisable.exc_value)
        if not (closed or inspect.iscoroutine(unraisable.object)):
            report(unraisable)

    sys.unraisablehook = report_others
