"""Prepare a dataset by name: once, completely or not at all."""

import shutil
from os import PathLike
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core import constants

from data_prep.building import ReidBuilder
from data_prep.datasets import builder_class
from data_prep.errors import ExpectedError, InputError, WriteError, write_problem
from data_prep.files import check_local, expand, locked
from data_prep.prepared import check_descriptions, read_metadata
from data_prep.progress import note
from data_prep.records import open_prepared


def prepare_dataset(
    name: str,
    source: str | PathLike[str] | None = None,
    data_dir: str | PathLike[str] | None = None,
    allow_partial: bool = False,
) -> tfds.core.DatasetBuilder:
    """Prepares a dataset, unless that is done already.

    Args:
      name: one of `data_prep.dataset_names()`, as "market1501" or "msmt17/train"; or "folder",
        "folder/NAME" for your own images.
      source: directory of the images; needed the first time. "synthetic" renders its own; "folder"
        without a name always needs it, being kept under a digest of its file list.
      data_dir: directory of the prepared datasets; None is TFDS's own.
      allow_partial: accept other counts than the published ones, with a warning. A partial copy
        that is prepared is not extended: another `source` is refused.

    Returns:
      The builder, for `read_records` or `as_data_source`.

    Raises:
      MissingFileError: not prepared, and no source, or the images are not in it.
      InputError: bad images, unexpected counts, an unknown name, or a damaged dataset.
      WriteError: the directory of the prepared datasets cannot be written.
    """
    builder = make_builder(name, source, data_dir, allow_partial)
    was_prepared = builder.is_prepared()
    if not was_prepared:
        root = builder.find_source(source)
        if source is not None and root != expand(source).resolve():
            note(f"{builder.name}: the images are those in {root}")
        with locked(builder.data_path.parent / ".preparing.lock"):
            # Another process may have done it while this one waited.
            if not builder.is_prepared():
                _prepare(builder, root)
    differences = _check_prepared(builder, source)
    if was_prepared and differences:
        note(f"{builder.name} is partial: {differences}")
    return open_prepared(builder.data_path)


def find_prepared(
    name: str, data_dir: str | PathLike[str] | None = None
) -> tfds.core.DatasetBuilder | None:
    """The builder of a dataset that is prepared, also from a partial copy; None if it is not.

    Raises:
      InputError: an unknown name.
    """
    builder = make_builder(name, None, data_dir)
    return open_prepared(builder.data_path) if builder.is_prepared() else None


def make_builder(
    name: str,
    source: str | PathLike[str] | None = None,
    data_dir: str | PathLike[str] | None = None,
    allow_partial: bool = False,
) -> ReidBuilder:
    """The builder of a dataset by name, prepared or not; see `prepare_dataset`.

    Raises:
      InputError: an unknown name, the address of a bucket, or the dataset is prepared but damaged.
      MissingFileError: "folder" without a name or a source.
    """
    check_local("The directory of prepared datasets", data_dir)
    check_local("The source of a dataset", source)
    dataset, _, variant = name.partition("/")
    builder = builder_class(dataset)
    config = builder.choose_config(variant, source)
    root = data_root(data_dir) / builder.name
    directory = root / getattr(config, "name", config or "") / str(builder.VERSION)
    # TFDS reads these files in the constructor.
    if (directory / constants.DATASET_INFO_FILENAME).exists():
        check_descriptions(directory)
    # TFDS warns of configurations that are not listed in the class, as those of own images are not.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        data_dir = expand(data_dir) if data_dir else None
        return builder(data_dir=data_dir, config=config, allow_partial=allow_partial)
    finally:
        logging.set_verbosity(verbosity)


def data_root(data_dir: str | PathLike[str] | None) -> Path:
    """The directory of prepared datasets; None is TFDS's own."""
    return expand(data_dir or constants.DATA_DIR)


def _prepare(builder: ReidBuilder, root: Path) -> None:
    """Writes the dataset next to its final directory; TFDS renames it when it is complete."""
    if builder.data_path.exists():
        raise InputError(
            f"{builder.data_path} exists but is not a complete dataset; remove it and try again."
        )
    # What a killed run left behind. The lock says that no other run is writing it.
    for leftover in builder.data_path.parent.glob(f"{constants.INCOMPLETE_PREFIX}*"):
        note(f"{builder.name}: removing {leftover}, left by an interrupted preparation")
        shutil.rmtree(leftover)
    # TFDS's bars take a line for each phase; ours replace them.
    tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=root, try_download_gcs=False),
        )
    except ExpectedError:
        raise
    except Exception as error:
        reason = write_problem(error)
        if reason is None:
            raise
        raise WriteError(f"{builder.data_path} cannot be written: {reason}.") from error
    finally:
        tfds.enable_progress_bar()


def _check_prepared(builder: ReidBuilder, source: str | PathLike[str] | None) -> str:
    """Refuses a dataset that was prepared from other images, or for tf.data.

    Returns:
      Differences of a partial copy from the published counts.

    Raises:
      InputError: says what is different.
    """
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise InputError(
            f"{builder.data_path} was prepared as {builder.info.file_format.value}, expected "
            "array_record. Prepare the dataset in another data_dir."
        )
    metadata = read_metadata(Path(builder.data_path))
    digest = getattr(builder.builder_config, "digest", None)
    differences = "; ".join(metadata["differences"])
    if differences:
        if not builder.allow_partial:
            raise InputError(
                f"{builder.data_path} was prepared from a partial copy: {differences}. Accept it "
                "(allow_partial), or remove it and prepare it again."
            )
        # The images need not be there any more.
        if source is not None and expand(source).is_dir():
            digest = builder.list_root(builder.find_source(source)).digest()
    if digest and digest != metadata["digest"]:
        raise InputError(
            f"{builder.data_path} was prepared from other files than those in {source}. Choose "
            "another name or data_dir, or remove it and prepare it again."
        )
    return differences
