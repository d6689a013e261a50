"""Reads of regular files, atomic writes, and locks between processes."""

import errno
import fcntl
import glob
import os
import platform
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from data_prep.errors import (
    ExpectedError,
    InputError,
    MissingFileError,
    WriteError,
    write_problem,
)
from data_prep.progress import note


def check_local(name: str, path: str | os.PathLike[str] | None) -> None:
    """Checks that a path is one of a mounted file system and not the address of a bucket.

    `pathlib` turns "gs://bucket/run" into "gs:/bucket/run", a path below the current directory.

    Args:
      name: what the path is given for, such as "--data-dir".
      path: the path; None is accepted.

    Raises:
      InputError: the path is an address, such as "gs://bucket/run".
    """
    if path is not None and re.match(r"[a-zA-Z][\w+.-]+:/", os.fspath(path)):
        raise InputError(
            f"{name} must be a path of a mounted file system, got {os.fspath(path)}: files are "
            "locked and mapped into memory, which buckets cannot do (docs/pods.md)."
        )


def expand(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~USER` replaced by a home directory.

    Raises:
        InputError: there is no such home directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} names the home directory of an unknown user.") from error


def check_file(path: Path, largest: int = sys.maxsize) -> int:
    """Checks that a path leads to a regular file, and its size; returns the size in bytes.

    Reading a FIFO would wait forever, and reading a device such as /dev/zero would fill the memory.

    Args:
      path: the file; links are followed.
      largest: the most bytes that the file may have.

    Raises:
      MissingFileError: nothing is there.
      InputError: a directory, FIFO, device or socket, a loop of links, or a file that is too large.
      OSError: the file cannot be reached for another reason.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no file {path}.") from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(f"{path} is a link that leads back to itself.") from error
    return _check_status(path, status, largest)


def check_output(path: Path) -> None:
    """Checks that a file can be written to `path`, before its content is computed.

    The parent directory is made if it is absent.

    Raises:
      InputError: `path` is not a file, but a directory, pipe, device or socket; or the address of
        a bucket.
      WriteError: its directory cannot be made.
    """
    try:
        _make_room(path)
    except ExpectedError:
        raise
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}.") from error


def _make_room(path: Path) -> None:
    check_local("A file to write", path)
    if path.exists():
        check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)


def read_file(path: Path, largest: int) -> bytes:
    """Reads a regular file of bounded size; see `check_file` for arguments and errors."""
    check_file(path, largest)
    # Opening a FIFO that was put there meanwhile must not wait either.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(_check_status(path, os.fstat(file.fileno()), largest))


def _check_status(path: Path, status: os.stat_result, largest: int) -> int:
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a pipe, device or socket"
        raise InputError(f"{path} is {kind}, expected a file.")
    if status.st_size > largest:
        raise InputError(f"{path} has {status.st_size:,} bytes, expected at most {largest:,}.")
    return status.st_size


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path next to `path`, and renames it to `path` after the block.

    The parent directory is made if it is absent. After an error the temporary file is removed, and
    `path` is as it was; the file of a killed process is removed by the next one. An error of full
    or read-only storage names `path`.

    Raises:
      InputError: `path` is not a file, but a directory, pipe, device or socket; or the address of
        a bucket.
      OSError: it cannot be written.
    """
    _make_room(path)
    prefix = f".{path.name}.{platform.node()}-"
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*.partial"):
        if not _is_running(leftover.name.removeprefix(prefix).removesuffix(".partial")):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f"{prefix}{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None and write_problem(error):
            error.filename = str(path)
        temporary.unlink(missing_ok=True)
        raise


def _is_running(pid: str) -> bool:
    """False if no process of this machine has the number."""
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True


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
    with _open_lock(path, hint) as file:
        if patience is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _lock_within(file.fileno(), patience)
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
        file.write(f"process {os.getpid()} on {platform.node()}")
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


def _lock_within(file: int, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise TimeoutError(f"The lock was not released in {patience:g} s.") from error
            time.sleep(0.05)
