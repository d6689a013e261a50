"""The images of a dataset as found on disk, and the comparison with the published counts."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from data_prep.names import Label, is_image_name, parse_market_name

MARKET_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
"""Market-1501's folder of every split; most other datasets are distributed in the same layout."""

JUNK_PID = -1
NO_CAMERA = -1
LARGEST_NUMBER = 2**31 - 1
"""The largest identity or camera: training and evaluation take them as 32 bits."""


class Encoded(Protocol):
    """An encoded image: the path of a file, or a position in a container."""

    def read_bytes(self) -> bytes:
        """The encoded image."""
        ...


class Item(NamedTuple):
    """One image: its file, raw identity, camera and name within the split."""

    file: Encoded
    pid: int
    camid: int
    name: str


@dataclass
class Listing:
    """The content of a source directory."""

    splits: dict[str, list[Item]] = field(default_factory=dict)
    """Images by split."""
    problems: list[str] = field(default_factory=list)
    """Files that should be images of the dataset but cannot be."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user about what was found and left out."""
    others: list[str] = field(default_factory=list)
    """Files and folders among the images that are not images."""

    def summary(self) -> list[str]:
        """Sentences for the user, the last about the files that are not images."""
        if not self.others:
            return self.notes
        shown = ", ".join(self.others[:5]) + (", ..." if len(self.others) > 5 else "")
        return [*self.notes, f"left out {len(self.others)} that are not images: {shown}"]

    def digest(self) -> str:
        """Digest of the labels, names and sizes of the images, which tells two sources apart."""
        digest = hashlib.sha256()
        for split, items in self.splits.items():
            for item in items:
                file = item.file
                size = file.stat().st_size if isinstance(file, Path) and file.is_file() else 0
                line = f"{split}\0{item.name}\0{item.pid}\0{item.camid}\0{size}\n"
                digest.update(line.encode(errors="surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class Count:
    """Size of a split as published."""

    images: int
    identities: int


@dataclass(frozen=True)
class Counts:
    """Size of a dataset as published."""

    splits: Mapping[str, Count]
    cameras: int

    def differences(self, splits: Mapping[str, list[Item]]) -> list[str]:
        """Returns a sentence for every number that differs from the published one."""
        different = []
        for split, count in self.splits.items():
            items = splits.get(split, [])
            identities = len({item.pid for item in items})
            if (len(items), identities) != (count.images, count.identities):
                different.append(
                    f"{split} has {len(items):,} images of {identities:,} identities, "
                    f"expected {count.images:,} of {count.identities:,}"
                )
        cameras = len({item.camid for items in splits.values() for item in items})
        if cameras != self.cameras:
            different.append(f"{cameras} cameras, expected {self.cameras}")
        return different


def image_files(directory: Path, listing: Listing) -> list[Path]:
    """Lists the images directly in a directory by name; adds the rest to `listing.others`."""
    images = []
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        # Unlike the method of `entry`, `isdir` is false for a link that leads back to itself.
        if os.path.isdir(entry.path) or not is_image_name(entry.name):
            listing.others.append(f"{directory.name}/{entry.name}")
            continue
        images.append(Path(entry.path))
    return images


def label_files(
    paths: list[Path],
    listing: Listing,
    split: str,
    parse: Callable[[str], Label | None],
    first_camera: int,
) -> list[Item]:
    """Reads the labels in the base names of some files.

    Junk (identity -1) is dropped from the gallery and noted; anywhere else it is a problem, and
    so is a name that does not parse.

    Args:
      paths: the files.
      listing: gets the problems and notes.
      split: "train", "query" or "gallery".
      parse: reads a base name.
      first_camera: number of the first camera in the names; it becomes camera 0.
    """
    items, junk = [], 0
    for path in paths:
        label = parse(path.name)
        if label is None:
            listing.problems.append(f"{path}: no identity and camera in its name")
        elif label.pid == JUNK_PID and split == "gallery":
            junk += 1
        elif label.pid < 0:
            listing.problems.append(f"{path}: identity {label.pid} in the {split} split")
        elif max(label.pid, label.camera or 0) > LARGEST_NUMBER:
            listing.problems.append(f"{path}: an identity or camera of more than 32 bits")
        elif label.camera is None:
            items.append(Item(path, label.pid, NO_CAMERA, path.name))
        elif label.camera < first_camera:
            listing.problems.append(f"{path}: camera {label.camera}, the first is {first_camera}")
        else:
            items.append(Item(path, label.pid, label.camera - first_camera, path.name))
    if junk:
        listing.notes.append(f"{split}: dropped {junk:,} junk images (identity -1)")
    return items


def outside_files(root: Path, listing: Listing) -> list[str]:
    """Finds listed files that are not below the root, or are links to other places.

    Without this check, a dataset from somebody else could copy any file of the user into the
    prepared dataset.

    Args:
      root: root directory of the dataset, which itself may be a link.
      listing: the images; those inside a container are left out.
    """
    root = Path(os.path.realpath(root))
    directories: dict[Path, Path] = {}
    problems = []
    for file in (item.file for items in listing.splits.values() for item in items):
        if not isinstance(file, Path):
            continue
        if file.parent not in directories:
            directories[file.parent] = Path(os.path.realpath(file.parent))
        target = directories[file.parent] / file.name
        if target.is_symlink():
            target = Path(os.path.realpath(target))
        if not target.is_relative_to(root):
            problems.append(f"{file}: leads to {target}, outside of {root}")
    return problems


def is_market_root(directory: Path) -> bool:
    """Tells whether a directory has Market-1501's three folders."""
    return all((directory / folder).is_dir() for folder in MARKET_FOLDERS.values())


def list_market(root: Path) -> Listing:
    """Lists a directory with Market-1501's layout and file names (cameras start at 1)."""
    listing = Listing()
    for split, folder in MARKET_FOLDERS.items():
        paths = image_files(root / folder, listing)
        listing.splits[split] = label_files(paths, listing, split, parse_market_name, 1)
    return listing
