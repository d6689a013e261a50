"""Builder of MSMT17, versions 1 and 2 (which blurs faces)."""

from pathlib import Path, PurePosixPath

import tensorflow_datasets as tfds

from data_prep.building import ReidBuilder
from data_prep.errors import MissingFileError
from data_prep.files import read_file
from data_prep.listing import LARGEST_NUMBER, Count, Counts, Item, Listing

LISTS = {"train": ("train", "val"), "query": ("query",), "gallery": ("gallery",)}
LARGEST_LIST = 2**27
"""The most bytes of a list file; the longest published one has less than 2**23."""
FOLDERS = ({"train": "train", "test": "test"}, {"train": "mask_train_v2", "test": "mask_test_v2"})


class Builder(ReidBuilder):
    """MSMT17 (Wei et al., CVPR 2018). Papers differ on which training images they use.

    Variants: `train` is list_train.txt alone, `trainval` adds list_val.txt, which has more images
    of the same identities. Training and test identities are both numbered from 0: equal numbers are
    different people.
    """

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name="train", description="30,248 training images"),
        tfds.core.BuilderConfig(name="trainval", description="32,621 training images"),
    ]
    same_test_images = True
    root_names = ("MSMT17_V1", "MSMT17_V2", "MSMT17")
    page = "https://www.pkuvmc.com/dataset.html"
    layout = (
        "list_train.txt, list_val.txt, list_query.txt, list_gallery.txt and the folders train and "
        "test (V1) or mask_train_v2 and mask_test_v2 (V2)"
    )

    def is_root(self, directory: Path) -> bool:
        """Tells whether a directory has the lists, and the image folders of a version."""
        lists = [name for names in self._lists().values() for name in names]
        return _folders(directory) is not None and all(
            (directory / f"list_{name}.txt").is_file() for name in lists
        )

    def list_images(self, root: Path) -> Listing:
        """Lists the images of the lists of the variant.

        Raises:
          MissingFileError: the root has no image folders.
        """
        folders = _folders(root)
        if folders is None:
            raise MissingFileError(f"{root} does not contain {self.layout}.")
        listing = Listing()
        for split, names in self._lists().items():
            folder = root / folders["train" if split == "train" else "test"]
            listing.splits[split] = [
                item
                for name in names
                for item in read_list(root / f"list_{name}.txt", folder, listing)
            ]
        return listing

    @property
    def expected(self) -> Counts:
        """Published counts of the variant."""
        images = 30_248 if self.builder_config.name == "train" else 32_621
        return Counts(
            {
                "train": Count(images, 1_041),
                "query": Count(11_659, 3_060),
                "gallery": Count(82_161, 3_060),
            },
            cameras=15,
        )

    def _lists(self) -> dict[str, tuple[str, ...]]:
        if self.builder_config.name == "trainval":
            return LISTS
        return LISTS | {"train": ("train",)}


def _folders(root: Path) -> dict[str, str] | None:
    """The image folders of the version in `root`; None if they are not there."""
    for folders in FOLDERS:
        if all((root / folder).is_dir() for folder in folders.values()):
            return folders
    return None


def read_list(path: Path, folder: Path, listing: Listing) -> list[Item]:
    """Reads a list file, with lines such as `0000/0000_045_12_0303morning_0006_2.jpg 0`.

    The identity is the number at the end of the line. The camera is the third field of the base
    name and counts from 1. A line of another form, and a name that leaves the folder, is added to
    the problems of the listing.
    """
    items: list[Item] = []
    # Names are bytes; those that are not UTF-8 are reported later.
    text = read_file(path, LARGEST_LIST).decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            name, pid = line.split()
            camera = int(name.rpartition("/")[2].split("_")[2])
            item = Item(folder / name, int(pid), camera - 1, name)
        except (ValueError, IndexError):
            listing.problems.append(f"{path}, line {number}: not a name and an identity: {line!r}")
            continue
        if not (0 <= item.pid <= LARGEST_NUMBER and 0 <= item.camid <= LARGEST_NUMBER):
            listing.problems.append(f"{path}, line {number}: bad identity or camera: {line!r}")
            continue
        if ".." in PurePosixPath(name).parts or name.startswith("/") or "\0" in name:
            listing.problems.append(f"{path}, line {number}: leaves the folder: {line!r}")
            continue
        items.append(item)
    return items
