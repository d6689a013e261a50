"""The datasets of this package: each subpackage with a `<name>_dataset_builder.py` is one."""

import importlib
from pathlib import Path
from typing import Any

from tensorflow_datasets.core import registered

from data_prep.errors import InputError


def list_datasets() -> list[str]:
    """The datasets that have a folder here, in alphabetical order."""
    return sorted(
        folder.name
        for folder in Path(__file__).parent.iterdir()
        if (folder / f"{folder.name}_dataset_builder.py").is_file()
    )


def builder_class(dataset: str) -> Any:
    """The builder class of a dataset, a subclass of `data_prep.building.ReidBuilder`.

    Raises:
      InputError: there is no such dataset.
    """
    known = list_datasets()
    if dataset not in known:
        raise InputError(f"Unknown dataset {dataset!r}; there are {', '.join(known)}.")
    return importlib.import_module(f"data_prep.{dataset}.{dataset}_dataset_builder").Builder


def dataset_names() -> dict[str, tuple[str, ...]]:
    """The names that `prepare_dataset` takes, by dataset.

    A dataset without variants has one name, its own; one with variants has a name for each, such as
    "msmt17/train". A dataset that users name themselves ("folder/NAME") has none.
    """
    return {dataset: builder_class(dataset).names() for dataset in list_datasets()}


def published_test_sets() -> list[tuple[str, ...]]:
    """The published test sets, each as the names of the datasets that contain it.

    Variants that differ in training images alone stand together, as ("msmt17/train",
    "msmt17/trainval").
    """
    groups: list[tuple[str, ...]] = []
    for dataset, names in dataset_names().items():
        builder = builder_class(dataset)
        if builder.root_names:
            groups += [names] if builder.same_test_images else [(name,) for name in names]
    return groups


def root_names() -> dict[str, tuple[str, ...]]:
    """Directory names by which each published dataset is known."""
    return {dataset: builder_class(dataset).root_names for dataset in list_datasets()}


class _Provider:
    """TFDS's view of the datasets: it imports a builder when its name is looked up."""

    def has_dataset(self, name: str) -> bool:
        return name in list_datasets()

    def get_builder_cls(self, name: str) -> Any:
        return builder_class(name)


def register_with_tfds() -> None:
    """Lets TFDS find the datasets by name, as in `tfds.builder("market1501")`."""
    # Before TFDS's own providers, which import all of TFDS's datasets to look for a name.
    registered.add_dataset_builder_provider(_Provider(), index=0)
