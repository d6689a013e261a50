"""Decoded splits: every image once, as one file of pixels that is read through the page cache.

The file is the pixels, uint8 [M, H, W, 3], then an index (JSON: what was decoded, and each image's
pid, camid and name), then a trailer of fixed length with the index's length and SHA-256.
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

_MAGIC = b"rmgl-1\r\n"
_TRAILER = struct.Struct("<8sQ32s")


class Label(NamedTuple):
    """What is known of an image."""

    pid: int
    camid: int
    name: str


@dataclass(frozen=True, eq=False)
class Split:
    """The decoded images of one split, with their labels."""

    images: np.memmap
    """uint8 [M, H, W, 3], RGB, read-only, on the disk until it is used."""
    pids: np.ndarray
    """Raw identities, int32 [M]."""
    camids: np.ndarray | None
    """Cameras from 0, int32 [M]; None in a set without camera ids."""
    names: Sequence[str]
    """File names."""
    dataset: str
    """Name of the data set, with its configuration if it has any."""
    version: str
    """Version of the data set."""
    split: str
    """Name of the split: "train", "query" or "gallery"."""

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
        """The images of the given indices, uint8 [B, H, W, 3], in memory."""
        return np.asarray(self.images)[indices]


def open_split(path: str | PathLike[str], key: dict[str, Any] | None = None) -> Split:
    """Opens a store file, checking its length, its index's checksum and, if given, its key.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is damaged, or of another key.
    """
    path = Path(path)
    index = _read_index(path)
    if key is not None and index["key"] != key:
        changed = [name for name in key if index["key"].get(name) != key[name]]
        raise ValueError(f"{path} was decoded from other data ({', '.join(changed)} changed).")
    key = index["key"]
    camids = np.array(index["camids"], np.int32)
    return Split(
        images=np.memmap(path, np.uint8, "r", shape=(len(index["pids"]), *key["size"], 3)),
        pids=np.array(index["pids"], np.int32),
        camids=None if (camids < 0).all() else camids,
        names=tuple(index["names"]),
        dataset=key["dataset"],
        version=key["version"],
        split=key["split"],
    )


def append_index(path: Path, key: dict[str, Any], labels: Sequence[Label]) -> None:
    """Makes a store of a file of pixels, and waits until it is on the disk.

    Args:
        path: File of the pixels.
        key: All that the pixels depend on; among it `dataset`, `version`, `split` and `size`.
        labels: Of every image; a camid below 0 is no camera id.

    Raises:
        ValueError: If a pid is not within 32 bits, or only some images have a camera id.
    """
    largest = np.iinfo(np.int32).max
    for label in labels:
        if not -largest <= label.pid <= largest:
            raise ValueError(f"{label.name}: pid {label.pid} is not within 32 bits.")
    without = sum(label.camid < 0 for label in labels)
    if 0 < without < len(labels):
        raise ValueError(
            f"{without} of {len(labels)} images of {key['dataset']} have no camera id: all or none "
            "must have one, as the evaluation either uses cameras or not."
        )
    index = {
        "key": key,
        "pids": [label.pid for label in labels],
        "camids": [label.camid for label in labels],
        "names": [label.name for label in labels],
    }
    encoded = json.dumps(index).encode()
    with open(path, "ab") as file:
        file.write(encoded)
        file.write(_TRAILER.pack(_MAGIC, len(encoded), hashlib.sha256(encoded).digest()))
        file.flush()
        os.fsync(file.fileno())


def _read_index(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        before_trailer = length - _TRAILER.size
        file.seek(max(before_trailer, 0))
        trailer = file.read()
        magic, index_length, checksum = (
            _TRAILER.unpack(trailer) if before_trailer >= 0 else (b"", 0, b"")
        )
        if magic != _MAGIC or index_length > before_trailer:
            raise ValueError(f"{path} is damaged: it does not end as a store of pixels does.")
        file.seek(before_trailer - index_length)
        encoded = file.read(index_length)
    if hashlib.sha256(encoded).digest() != checksum:
        raise ValueError(f"{path} is damaged: its index is not the one that was written.")
    index = json.loads(encoded)
    height, width = index["key"]["size"]
    wanted = len(index["pids"]) * height * width * 3 + index_length + _TRAILER.size
    if length != wanted:
        raise ValueError(f"{path} is damaged: it has {length} bytes instead of {wanted}.")
    return index
