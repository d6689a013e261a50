"""Atomic writes, and locks between processes."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import WriteError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path next to `path`, and renames it to `path` after the block.

    The parent directory is made if it is absent. After an error the temporary file is removed, and
    `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 file completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file completely or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def locked(path: Path, hint: str = "", patience: float | None = None) -> Iterator[None]:
    """Holds an exclusive lock on a file, which is made if absent; released when its holder dies.

    Args:
      path: the file; others that lock it wait.
      hint: what the user can do if the file cannot be made, added to the error.
      patience: seconds to wait for another holder; None waits until it is released.

    Raises:
      WriteError: the file cannot be made or opened.
      TimeoutError: another process held the lock for all of `patience`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise WriteError(f"{path.parent} cannot be written ({error.strerror}). {hint}") from error
    with open(path, "a") as file:
        if patience is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _lock_within(file.fileno(), patience)
        yield


def _lock_within(file: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise TimeoutError(f"The lock was not released in {patience:g} s.") from error
            time.sleep(0.05)
