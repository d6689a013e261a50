"""Actions that the processes of a run do together: if one fails, all end with an error message."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from data_prep.errors import ExpectedError
from data_prep.files import held

LOCK_NAME = ".lock"


class PeerError(ExpectedError, RuntimeError):
    """Another process failed; its own message says why."""


def main_process_first(action: Callable[[], object], purpose: str) -> None:
    """Calls an action in process 0, then in all others.

    An expected error in one process ends all of them, which would otherwise wait for each other in
    the first step.

    Args:
        action: what every process does.
        purpose: its description after "process 1 cannot", for the error of the other processes.

    Raises:
        ExpectedError: the action's own.
        PeerError: the action raised an error in another process.
    """
    if jax.process_count() == 1:
        action()
        return
    is_main_process = jax.process_index() == 0
    for main_process_turn in (True, False):
        problem: ExpectedError | None = None
        if main_process_turn == is_main_process:
            try:
                action()
            except ExpectedError as error:
                problem = error
        failed = multihost_utils.process_allgather(np.array(problem is not None))
        if problem is not None:
            raise problem
        if failed.any():
            raise PeerError(
                f"Stopped, because process {np.flatnonzero(failed)[0]} cannot {purpose}; see its "
                "message."
            )


@contextmanager
def lock_run_directory(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of a run directory; process 0 holds the lock for all processes.

    Raises:
        WriteError: another run uses the directory, or it cannot be written.
        PeerError: process 0 raised this error.
    """
    with ExitStack() as stack:

        def lock() -> None:
            if jax.process_index() == 0:
                hint = "Wait until it has ended, or use another run directory."
                stack.enter_context(held(workdir / LOCK_NAME, hint))

        main_process_first(lock, f"lock the run directory {workdir}")
        yield
