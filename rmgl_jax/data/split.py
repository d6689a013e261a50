"""Stores of decoded splits: one file of pixels, which is memory-mapped.

The file holds the pixels, uint8 [M, H, W, 3], then an index (JSON: the key of the decoded data and
each image's pid, camid, name and checksum), then a trailer of fixed length: a magic number and the
index's length and SHA-256.
"""

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.errors import InputError
from data_prep.files import check_file
from data_prep.json_text import parse_json
from rmgl_jax.data.pixels import Images, Pixels

_MAGIC = b"rmgl-2\r\n"
_WITHOUT_CHECKSUMS = b"rmgl-1\r\n"
_TRAILER = struct.Struct("<8sQ32s")


class Label(NamedTuple):
    """Labels of one image."""

    pid: int
    camid: int
    name: str
    digest: str = ""
    """SHA-256 of the encoded image."""


@dataclass(frozen=True, eq=False)
class Split:
    """The decoded images of one split, with their labels."""

    images: Images
    """uint8 [M, H, W, 3], RGB; the memory-mapped pixels of a store, or an array."""
    pids: np.ndarray
    """Identities as in the dataset, int32 [M]."""
    camids: np.ndarray | None
    """Cameras from 0, int32 [M]; None in a dataset without camera ids."""
    names: Sequence[str]
    """File names."""
    dataset: str
    """Name of the dataset, with its configuration if it has any."""
    version: str
    """Version of the dataset."""
    split: str
    """Name of the split: "train", "query" or "gallery"."""
    digest: str = ""
    """Digest of the encoded images and their labels, which tells data of the same name apart."""

    def __len__(self) -> int:
        return len(self.pids)

    @cached_property
    def labels(self) -> np.ndarray:
        """Identities as 0, ..., n-1 in the order of the pids, int32 [M]."""
        return np.unique(self.pids, return_inverse=True)[1].astype(np.int32)

    @cached_property
    def num_classes(self) -> int:
        """Number n of identities."""
        return len(np.unique(self.pids))

    def batch(self, indices: np.ndarray) -> np.ndarray:
        """The images of the given indices, uint8 [B, H, W, 3], in memory.

        Raises:
            InputError: If pixels of the store are damaged; see `Pixels`.
        """
        return self.images[indices]


def open_split(path: str | PathLike[str], key: dict[str, Any] | None = None) -> Split:
    """Opens a store; checks its length, the checksum of its index and, if given, its key.

    The pixels are checked when they are read; see `Pixels`.

    Args:
        path: The store file.
        key: Everything that the pixels depend on; None accepts any.

    Raises:
        MissingFileError: If there is no such file.
        InputError: If the file is damaged, has another key, or was written by a version without
            checksums of the pixels.
    """
    path = Path(path)
    index = _read_index(path)
    if key is not None and index["key"] != key:
        changed = [name for name in key if index["key"].get(name) != key[name]]
        raise InputError(f"{path} was decoded from other data ({', '.join(changed)} changed).")
    key = index["key"]
    camids = np.array(index["camids"], np.int32)
    return Split(
        images=Pixels(path, (len(index["pids"]), *key["size"], 3), index["checksums"]),
        pids=np.array(index["pids"], np.int32),
        camids=None if (camids < 0).all() else camids,
        names=tuple(index["names"]),
        dataset=key["dataset"],
        version=key["version"],
        split=key["split"],
        digest=index["digest"],
    )


def append_index(
    path: Path, key: dict[str, Any], labels: Sequence[Label], checksums: Sequence[int]
) -> None:
    """Appends index and trailer to a file of pixels, and flushes the file to disk.

    Args:
        path: File of the pixels.
        key: Everything that the pixels depend on, with at least `dataset`, `version`, `split` and
            `size`.
        labels: Labels of all images; a camid below 0 means no camera id.
        checksums: Checksums of all images; see `rmgl_jax.data.pixels.checksum`.

    Raises:
        InputError: If a pid or camid is not within 32 bits, or only some images have a camera id.
    """
    largest = np.iinfo(np.int32).max
    for label in labels:
        for name, value in (("pid", label.pid), ("camid", label.camid)):
            if not -largest <= value <= largest:
                raise InputError(f"{label.name}: {name} {value} is not within 32 bits.")
    without = sum(label.camid < 0 for label in labels)
    if 0 < without < len(labels):
        raise InputError(
            f"{without} of {len(labels)} images of {key['dataset']} have no camera id: either all "
            "images or none must have one."
        )
    index = {
        "key": key,
        "digest": hashlib.sha256(json.dumps(labels).encode()).hexdigest(),
        "pids": [label.pid for label in labels],
        "camids": [label.camid for label in labels],
        "names": [label.name for label in labels],
        "checksums": list(checksums),
    }
    encoded = json.dumps(index).encode()
    with open(path, "ab") as file:
        file.write(encoded)
        file.write(_TRAILER.pack(_MAGIC, len(encoded), hashlib.sha256(encoded).digest()))
        file.flush()
        os.fsync(file.fileno())


def _read_index(path: Path) -> dict[str, Any]:
    check_file(path)
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        before_trailer = length - _TRAILER.size
        file.seek(max(before_trailer, 0))
        trailer = file.read()
        magic, index_length, checksum = (
            _TRAILER.unpack(trailer) if before_trailer >= 0 else (b"", 0, b"")
        )
        if magic == _WITHOUT_CHECKSUMS:
            raise InputError(f"{path} has no checksums of its pixels: an older version wrote it.")
        if magic != _MAGIC or index_length > before_trailer:
            raise InputError(f"{path} is damaged: it does not end with the trailer of a store.")
        file.seek(before_trailer - index_length)
        encoded = file.read(index_length)
    if hashlib.sha256(encoded).digest() != checksum:
        raise InputError(f"{path} is damaged: the checksum of its index is wrong.")
    index = parse_json(encoded)
    if "digest" not in index:
        raise InputError(f"{path} is from an earlier version, which recorded no digest.")
    height, width = index["key"]["size"]
    expected = len(index["pids"]) * height * width * 3 + index_length + _TRAILER.size
    if length != expected:
        raise InputError(f"{path} is damaged: it has {length} bytes instead of {expected}.")
    return index
