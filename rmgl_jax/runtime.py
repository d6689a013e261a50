"""Set-up of a command-line process: JAX, logging, and expected errors printed in one line."""

import contextlib
import inspect
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import jax
from absl import logging as absl_logging
from rich.console import Console

from data_prep.errors import ExpectedError, InputError, is_expected
from data_prep.files import cache_directory
from data_prep.progress import replace_unprintable
from rmgl_jax.cpu import keep_freed_memory

_LONGEST = 86_400
"""Longest timeout in seconds."""


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
        jax.distributed.initialize(options.coordinator, options.processes, options.process)


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the second start of a program takes seconds."""
    # Not every version of jax declares the attribute.
    if not cast(Any, jax.config).jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "jax"))


@contextlib.contextmanager
def report_errors(console: Console, debug: bool = False) -> Iterator[None]:
    """Prints expected errors in one line and exits with status 1.

    Expected are `ExpectedError`s and full, read-only or forbidden storage. Anything else is a bug
    and keeps its traceback; with `debug` every error does. Ctrl-C exits with status 130.
    """
    replace_unprintable()
    try:
        yield
    except KeyboardInterrupt:
        if debug:
            raise
        console.print("Interrupted.")
        sys.exit(130)
    except (ExpectedError, OSError) as error:
        if debug or not is_expected(error):
            raise
        console.print("[bold red]Error:[/]", end=" ")
        console.print(str(error), markup=False, highlight=False)
        sys.exit(1)


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
