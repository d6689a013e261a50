"""Preparing a data set by name: once, completely or not at all."""

import fcntl
import importlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import constants

from data_prep.building import ReidBuilder
from data_prep.progress import note
from data_prep.records import open_prepared

DATASETS = ("market1501", "dukemtmc_reid", "cuhk03_np", "msmt17", "folder", "synthetic")


def prepare_dataset(
    name: str,
    source: Path | None = None,
    data_dir: Path | None = None,
    allow_partial: bool = False,
) -> tfds.core.DatasetBuilder:
    """Prepare a data set, unless that is done already.

    Args:
      name: "market1501", "dukemtmc_reid", "cuhk03_np/labeled", "cuhk03_np/detected",
        "msmt17/train", "msmt17/trainval", "folder", "folder/NAME", "synthetic/tiny",
        "synthetic/demo" or "synthetic/full".
      source: directory of the images; needed the first time. "synthetic" renders its own; "folder"
        without a name always needs it, being kept under a digest of its file list.
      data_dir: where prepared sets are kept; None is TFDS's own directory.
      allow_partial: accept other counts than the published ones, with a warning.

    Returns:
      The builder, for `read_records` or `as_data_source`.

    Raises:
      FileNotFoundError: not prepared, and no source or not the images there.
      ValueError: bad images, unexpected counts, or an unknown name.
    """
    builder = make_builder(name, source, data_dir, allow_partial)
    if not _is_prepared(builder):
        root = builder.find_source(source)
        with _lock(builder.data_path.parent / ".preparing.lock"):
            # Another process may have done it while this one waited.
            if not _is_prepared(builder):
                _prepare(builder, root)
    _check_prepared(builder, source)
    return open_prepared(builder.data_path)


def make_builder(
    name: str, source: Path | None, data_dir: Path | None, allow_partial: bool
) -> ReidBuilder:
    """The builder of a set by name, prepared or not."""
    dataset, _, config = name.partition("/")
    if dataset not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; there are {', '.join(DATASETS)}.")
    module = importlib.import_module(f"data_prep.{dataset}.{dataset}_dataset_builder")
    if hasattr(module, "make_config"):
        config = module.make_config(config, source)
    elif config != "" or module.Builder.builder_configs:
        # Without one TFDS would take the first.
        known = [f"{dataset}/{known}" for known in module.Builder.builder_configs] or [dataset]
        if name not in known:
            raise ValueError(f"unknown data set {name!r}; there is {', '.join(known)}.")
    # TFDS warns of configurations that are not listed in the class, as those of own images are not.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        return module.Builder(data_dir=data_dir, config=config or None, allow_partial=allow_partial)
    finally:
        logging.set_verbosity(verbosity)


def _is_prepared(builder: ReidBuilder) -> bool:
    # TFDS logs a warning where there is nothing at all.
    return builder.data_path.exists() and builder.is_prepared()


def _prepare(builder: ReidBuilder, root: Path) -> None:
    """Write the set below its final name's directory; TFDS renames it when it is whole."""
    if builder.data_path.exists():
        raise ValueError(
            f"{builder.data_path} is there but not a complete data set; remove it and try again."
        )
    # What a killed run left behind. The lock says that no other run is writing it.
    for leftover in builder.data_path.parent.glob(f"{constants.INCOMPLETE_PREFIX}*"):
        note(f"{builder.name}: removing {leftover}, left by an interrupted preparation")
        shutil.rmtree(leftover)
    builder.make_source(root)
    # Its bars mark every phase on a line of its own; ours take their place.
    tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=root, try_download_gcs=False),
            file_format="array_record",
        )
    finally:
        tfds.enable_progress_bar()


def _check_prepared(builder: ReidBuilder, source: Path | None) -> None:
    """Refuse a set that was prepared from other images than are now asked for."""
    metadata = json.loads((builder.data_path / constants.METADATA_FILENAME).read_text())
    if metadata["differences"] and not builder.allow_partial:
        raise ValueError(
            f"{builder.data_path} was prepared from a partial copy: "
            f"{'; '.join(metadata['differences'])}. Accept it (allow_partial), or remove it and "
            "prepare it again."
        )
    digest = getattr(builder.builder_config, "digest", None)
    if digest and digest != metadata["digest"]:
        raise ValueError(
            f"{builder.data_path} was prepared from other files than those in {source}. Choose "
            "another name, or remove it and prepare it again."
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a file's lock; a process that dies lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
