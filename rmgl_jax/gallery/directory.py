"""The directory of a gallery: its files, and the lock that keeps other processes out."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from data_prep.errors import InputError, MissingFileError
from data_prep.files import locked
from rmgl_jax.gallery.checksums import Checksum, check_checksums, write_checksums

MODEL, SETTINGS, LOCK = "model.safetensors", "gallery.json", "gallery.lock"
"""Names of the files of a gallery."""


def has_gallery(directory: Path, create: bool) -> bool:
    """Checks that a directory has a gallery, or is to have one and holds nothing else.

    Returns:
        True if it has one.

    Raises:
        MissingFileError: it has none, and `create` is False.
        InputError: it holds something else.
    """
    if (directory / SETTINGS).exists():
        return True
    if not create:
        raise MissingFileError(
            f"{directory} is not a gallery: it has no {SETTINGS}. `rmgl gallery add` makes one."
        )
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is not a directory.")
    # The lock is there if making the gallery was interrupted.
    if directory.is_dir() and not (directory / LOCK).exists() and any(directory.iterdir()):
        raise InputError(f"{directory} is not a gallery, and holds other files.")
    return False


@contextmanager
def only_process(directory: Path, patience: float) -> Iterator[Mapping[str, Checksum] | None]:
    """Keeps other processes from opening the directory, and checks that it is as it was closed.

    Args:
        directory: the directory, made if absent.
        patience: seconds to wait for another process.

    Yields:
        The checksums of its files; None if the process that used it before ended without closing
        it, so that there are none to compare.

    Raises:
        InputError: another process has it open, or a file is damaged.
        WriteError: the directory cannot be written.
    """
    lock = directory / LOCK
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, patience=patience))
        except TimeoutError as error:
            holder = (read_text(lock) or "").strip()
            raise InputError(
                f"The gallery {directory} is open in another process"
                f"{f' ({holder})' if holder else ''}; only one at a time can use it."
            ) from error
        yield None if read_text(lock) else check_checksums(directory)


@contextmanager
def in_use(directory: Path, known: Mapping[str, Checksum] | None) -> Iterator[None]:
    """Marks the directory as in use; at the end its files get new checksums, and the mark goes.

    After an error, such as a full disk, the mark stays: the next process looks at what is there.

    Args:
        directory: the directory, held by `only_process`.
        known: what `only_process` has yielded.
    """
    lock = directory / LOCK
    lock.write_text(f"process {os.getpid()}")
    yield
    write_checksums(directory, known or {})
    lock.write_text("")


def read_text(file: Path) -> str | None:
    """Reads a file; None if it is not there."""
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return None
