"""Memory-mapped pixels of a store; each image is checked when it is first read."""

import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from data_prep.errors import InputError
from data_prep.workers import cores

checksum = zlib.crc32
"""Checksum of the pixels of one image, an integer of 32 bits."""
THREADS = 4
"""The most threads that compute checksums."""


class Pixels:
    """Images of a store, uint8 [M, H, W, 3], indexed like a read-only array.

    An image is compared with its checksum when it is first read, so that damage on disk ends with
    an error and not with other results. `numpy.asarray` reads and checks all images.

    Raises:
        InputError: From reading: images differ from their checksums.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int, int], checksums: list[int]) -> None:
        self._path = path
        # A plain array, because indexing a `numpy.memmap` takes longer.
        self._pixels = np.asarray(np.memmap(path, np.uint8, "r", shape=shape))
        self._checksums = checksums
        self._checked = np.zeros(len(checksums), bool)

    @property
    def shape(self) -> tuple[int, ...]:
        """M, H, W and 3."""
        return self._pixels.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions, 4."""
        return self._pixels.ndim

    @property
    def dtype(self) -> np.dtype:
        """The type uint8."""
        return self._pixels.dtype

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: Any) -> np.ndarray:
        rows = index[0] if isinstance(index, tuple) else index
        self._check(np.arange(len(self))[rows])
        return self._pixels[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self[:], dtype, copy=copy)

    def _check(self, rows: np.ndarray) -> None:
        """Checks the images of these indices that were not checked before."""
        unchecked = np.unique(rows[~self._checked[rows]])
        if not len(unchecked):
            return
        # zlib computes without Python's lock.
        parts = np.array_split(unchecked, min(cores(), THREADS, len(unchecked)))
        with ThreadPoolExecutor(len(parts)) as pool:
            damaged = list(chain.from_iterable(pool.map(self._damaged, parts)))
        if damaged:
            raise InputError(
                f"{self._path} is damaged: {len(damaged)} of {len(unchecked)} images that were "
                f"read differ from their checksums, the first is image {damaged[0]}. Delete the "
                "file; it is decoded again."
            )
        self._checked[unchecked] = True

    def _damaged(self, rows: np.ndarray) -> list[int]:
        return [row for row in rows.tolist() if checksum(self._pixels[row]) != self._checksums[row]]


Images: TypeAlias = np.ndarray | Pixels
"""Images in memory or in a store, uint8 [M, H, W, 3]."""
