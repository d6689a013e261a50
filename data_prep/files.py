"""Atomic writes, and locks between processes."""

import fcntl
import os
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
def locked(path: Path, hint: str = "") -> Iterator[None]:
    """Holds an exclusive lock on a file, which is made if absent; released when its holder dies.

    Args:
      path: the file; others that lock it wait.
      hint: what the user can do if the file cannot be made, added to the error.

    Raises:
      WriteError: the file cannot be made or opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise WriteError(f"{path.parent} cannot be written ({error.strerror}). {hint}") from error
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
