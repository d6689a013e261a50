"""The files of a prepared dataset: their features, and checks before TFDS reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from google.protobuf import json_format
from tensorflow_datasets.core import constants, dataset_info

from data_prep.errors import InputError
from data_prep.files import check_file, read_file
from data_prep.json_text import parse_json

LARGEST_JSON = 2**26
"""The most bytes of a JSON file of a dataset."""


def features() -> tfds.features.FeaturesDict:
    """The features of one image, the same in all datasets."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(doc="The original file, not re-encoded."),
            "pid": tfds.features.Scalar(np.int64, doc="Identity as in the dataset."),
            "camid": tfds.features.Scalar(np.int64, doc="Camera from 0; -1 if unknown."),
            "name": tfds.features.Text(doc="File name."),
        }
    )


def read_metadata(directory: Path) -> dict[str, Any]:
    """Reads what `data_prep` records of a dataset: differences, notes and digest.

    Raises:
      MissingFileError: there is no such file.
      InputError: the file is damaged.
    """
    path = directory / constants.METADATA_FILENAME
    metadata = _read_json(path)
    if not (
        isinstance(metadata, dict)
        and isinstance(metadata.get("digest"), str)
        and isinstance(metadata.get("differences"), list)
        and all(isinstance(difference, str) for difference in metadata["differences"])
    ):
        raise _damaged(path, "it has no digest or no differences")
    return metadata


def check_descriptions(directory: Path) -> None:
    """Checks the JSON files of a prepared dataset.

    TFDS imports the modules that `features.json` names, so that only the known features are
    accepted.

    Raises:
      MissingFileError: a file is not there.
      InputError: a file is damaged; names it.
    """
    read_metadata(directory)
    path = directory / constants.FEATURES_FILENAME
    expected = json_format.MessageToDict(features().to_proto())
    if _without_descriptions(_read_json(path)) != _without_descriptions(expected):
        raise _damaged(path, "its features are not those of an image with labels")
    path = directory / constants.DATASET_INFO_FILENAME
    _read_json(path)
    # A damaged file makes TFDS raise errors of many kinds.
    try:
        info = dataset_info.read_from_json(path)
    except Exception as error:
        raise _damaged(path, str(error)) from error
    if not info.name or not info.splits:
        raise _damaged(path, "it has no name or no splits")


def check_records(builder: tfds.core.DatasetBuilder) -> None:
    """Checks the record files of a prepared dataset: each is there and has all its records.

    Raises:
      MissingFileError: a file is not there.
      InputError: a file is damaged; names it.
    """
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        return
    description = Path(builder.data_path) / constants.DATASET_INFO_FILENAME
    for split in builder.info.splits.values():
        # TFDS fills in a pattern, which may be damaged and then raises errors of many kinds.
        try:
            shards = list(zip(split.filepaths, split.shard_lengths, strict=True))
        except Exception as error:
            raise _damaged(description, f"the names of its records: {error}") from error
        for name, expected in shards:
            path = Path(name)
            if path.parent != Path(builder.data_path):
                raise _damaged(description, f"it names records in {path}")
            check_file(path)
            # Its reader raises the errors of a C++ library, of many kinds.
            try:
                reader = ArrayRecordReader(str(path))
                found = reader.num_records()
                reader.close()
            except Exception as error:
                raise _damaged(path, str(error)) from error
            if found != expected:
                raise _damaged(path, f"it has {found} records, expected {expected}")


def damaged_records(builder: tfds.core.DatasetBuilder, split: str, error: Exception) -> InputError:
    """The error of records of a split that cannot be read."""
    name = f"{builder.name}-{split}.array_record-*"
    return _damaged(Path(builder.data_dir) / name, str(error))


def _read_json(path: Path) -> Any:
    content = read_file(path, LARGEST_JSON)
    try:
        return parse_json(content)
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path} is damaged: {problem}. Remove the directory {path.parent} and prepare the dataset "
        "again."
    )


def _without_descriptions(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_descriptions(part) for key, part in value.items() if key != "description"
        }
    return value
