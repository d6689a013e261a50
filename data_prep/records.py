"""Random access to the encoded images and the labels of a prepared dataset."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TypedDict, overload

import tensorflow_datasets as tfds

from data_prep.errors import InputError
from data_prep.prepared import check_descriptions, check_records, damaged_records


class Record(TypedDict):
    """One image as it was on disk."""

    image_bytes: bytes
    """The original file."""
    pid: int
    """Identity as in the dataset, not a label in `0..n-1`."""
    camid: int
    """Camera from 0; -1 in a dataset without camera ids."""
    name: str
    """File name."""


class Records(Sequence[Record]):
    """A split with random access: `records[i]` reads one image and decodes nothing.

    Raises:
      InputError: from reading: the record is damaged.
    """

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str) -> None:
        self._builder, self._split = builder, split
        self._source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of a split of {len(self)}")
        # The reader of ArrayRecord raises errors of many kinds on a damaged file.
        try:
            example = self._source[index]
            return Record(
                image_bytes=example["image"],
                pid=int(example["pid"]),
                camid=int(example["camid"]),
                name=example["name"].decode(),
            )
        except Exception as error:
            raise damaged_records(self._builder, self._split, error) from error


def read_records(builder: tfds.core.DatasetBuilder, split: str) -> Records:
    """The records of a prepared split, "train", "query" or "gallery".

    Raises:
      KeyError: the dataset has no such split.
    """
    if split not in builder.info.splits:
        raise KeyError(f"{builder.name} has no split {split!r}, only {list(builder.info.splits)}")
    return Records(builder, split)


def open_prepared(path: str | PathLike[str]) -> tfds.core.DatasetBuilder:
    """The builder of a prepared dataset from its directory (`builder.data_path`).

    Raises:
      MissingFileError: the directory or one of its files is not there.
      InputError: a file of the dataset is damaged; names it.
    """
    path = Path(path)
    check_descriptions(path)
    try:
        builder = tfds.builder_from_directory(path)
    # The files are well-formed, but TFDS fails on some values, by errors of many kinds.
    except Exception as error:
        raise InputError(
            f"The dataset in {path} cannot be opened: {error}. Remove the directory and prepare "
            "the dataset again."
        ) from error
    check_records(builder)
    return builder
