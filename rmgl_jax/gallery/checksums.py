"""Checksums of the files of a gallery in a directory, which Milvus Lite does not have.

Without them a search in a damaged gallery may find fewer images, or none, without an error. They
are written when the gallery is closed and compared when it is opened. After a kill the files are
newer than their checksums, and are not compared.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from data_prep.errors import InputError
from data_prep.files import write_text
from data_prep.json_text import parse_json

CHECKSUMS = "checksums.json"
_COVERED = "milvus.db/**/*"  # Settings and model have checks of their own.
_BLOCK = 2**20  # bytes


class Checksum(NamedTuple):
    """State of a file."""

    size: int
    """Bytes."""
    modified: int
    """Time of the last change in nanoseconds, which is not stored."""
    crc32: int


def compute_checksums(
    directory: Path, known: Mapping[str, Checksum] | None = None
) -> dict[str, Checksum]:
    """Computes the checksums of the files of a gallery, by their path in it.

    Args:
        directory: the gallery.
        known: earlier checksums; files of the same size and time are not read again.
    """
    found = {}
    for path in sorted(filter(Path.is_file, directory.glob(_COVERED))):
        name, status = path.relative_to(directory).as_posix(), path.stat()
        checksum = (known or {}).get(name)
        if checksum is None or checksum[:2] != (status.st_size, status.st_mtime_ns):
            crc32 = 0
            for block in _blocks(path):
                crc32 = zlib.crc32(block, crc32)
            checksum = Checksum(status.st_size, status.st_mtime_ns, crc32)
        found[name] = checksum
    return found


def check_checksums(directory: Path) -> dict[str, Checksum]:
    """Compares the files of a gallery with their checksums, if it has some, and returns them.

    Raises:
        InputError: names a file that is missing or has changed since the gallery was closed.
    """
    found, path = compute_checksums(directory), directory / CHECKSUMS
    if not path.exists():
        return found
    try:
        expected = {name: tuple(numbers) for name, numbers in parse_json(path.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}. Remove it if the rest is whole.") from error
    for name in sorted(expected.keys() | found.keys()):
        now = found.get(name)
        if now is None or expected.get(name) != (now.size, now.crc32):
            raise InputError(
                f"The gallery {directory} is damaged: {name} "
                f"{'is missing' if now is None else 'has changed'} since it was closed. Restore it "
                f"from a copy, or make a new gallery; remove {CHECKSUMS} to open it all the same."
            )
    return found


def write_checksums(directory: Path, known: Mapping[str, Checksum]) -> None:
    """Writes the checksums of a gallery that was closed; see `compute_checksums` for `known`."""
    found = compute_checksums(directory, known)
    tree = {name: [checksum.size, checksum.crc32] for name, checksum in found.items()}
    write_text(directory / CHECKSUMS, json.dumps(tree, indent=0) + "\n")


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            yield block
