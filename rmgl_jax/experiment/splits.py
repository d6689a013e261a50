"""Splits of a dataset that training and evaluation need."""

from os import PathLike

from tensorflow_datasets.core import DatasetBuilder

from data_prep import prepare_dataset
from data_prep.errors import InputError
from rmgl_jax.data import store
from rmgl_jax.data.store import Split

QueryAndGallery = tuple[Split, Split]
AnyPath = str | PathLike[str]


def load_train_and_test(
    dataset: str,
    image_size: tuple[int, int],
    *,
    source: AnyPath | None = None,
    data_dir: AnyPath | None = None,
    allow_partial: bool = False,
) -> tuple[Split, QueryAndGallery | None]:
    """Loads the training images, and query and gallery if the dataset has them.

    The dataset is prepared and decoded on first use.

    Args:
        dataset: name as of `prepare_dataset`.
        image_size: height and width of the decoded images.
        source: directory of the dataset's files.
        data_dir: directory of prepared datasets.
        allow_partial: accept other image counts than the published ones.

    Raises:
        InputError: the dataset has no training images, or only one of query and gallery. See also
            `prepare_dataset`.
    """
    builder = prepare_dataset(dataset, source, data_dir, allow_partial=allow_partial)
    if "train" not in builder.info.splits:
        raise InputError(f"{builder.data_path} has no images of train.")
    test = load_query_and_gallery(builder, image_size)
    return store.decode_split(builder, "train", image_size), test


def load_query_and_gallery(
    builder: DatasetBuilder, image_size: tuple[int, int]
) -> QueryAndGallery | None:
    """Loads query and gallery of a prepared dataset; None if it has neither.

    Raises:
        InputError: the dataset has only one of them.
    """
    missing = [name for name in ("query", "gallery") if name not in builder.info.splits]
    if len(missing) == 2:
        return None
    if missing:
        raise InputError(
            f"{builder.data_path} has no images of {missing[0]}: a test set consists of query and "
            "gallery."
        )
    query, gallery = (
        store.decode_split(builder, name, image_size) for name in ("query", "gallery")
    )
    return query, gallery
