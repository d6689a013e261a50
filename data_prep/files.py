"""Atomic writes, and locks between processes."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from data_prep.errors import WriteError
from data_prep.progress import note


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


def cache_directory() -> Path:
    """The user's directory for files of this project that can be made again; may be absent."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rmgl_jax"


@contextmanager
def locked(path: Path, hint: str = "") -> Iterator[None]:
    """Holds an exclusive lock on a file, which is made if absent; released when its holder dies.

    Args:
      path: the file; others that lock it wait.
      hint: what the user can do if the file cannot be made, added to the error.

    Raises:
      WriteError: the file cannot be made or opened.
    """
    with _open_lock(path, hint) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def held(path: Path, hint: str = "") -> Iterator[None]:
    """Holds a lock as `locked` does, but raises an error if another process holds it.

    The file, which names its holder, is removed after the block. A file that a killed process left
    does not count. On file systems without locks nothing is locked, which is noted.

    Args:
      path: the file, in the directory that the lock is for.
      hint: what the user can do, added to the error.

    Raises:
      WriteError: names the holder; or the file cannot be made or opened.
    """
    file = _open_lock(path)
    try:
        while not _lock_now(file, path, hint):
            file.close()
            file = _open_lock(path)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        file.close()


def _open_lock(path: Path, hint: str = "") -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a+", encoding="utf-8")
    except OSError as error:
        raise WriteError(
            f"{path.parent} cannot be written ({error.strerror}). {hint}".rstrip()
        ) from error


def _lock_now(file: TextIO, path: Path, hint: str) -> bool:
    """Locks a file; False if another process removed it before this one had the lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read() or "another process"
        raise WriteError(f"{path.parent} is in use by {holder}. {hint}") from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
        note(f"{path.parent} has no locks: do not start a second process on it.")
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
