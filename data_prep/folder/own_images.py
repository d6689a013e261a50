"""List a user's own images, with identities and cameras from folder and file names."""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from data_prep.listing import JUNK_PID, NO_CAMERA, Item, Listing, image_files, label_files
from data_prep.names import Label, find_camera, is_image_name, parse_own_name

FOLDERS = {
    "train": ("bounding_box_train", "train"),
    "query": ("query",),
    "gallery": ("bounding_box_test", "gallery"),
}
LAYOUT = (
    "the folders train (or bounding_box_train), query and gallery (or bounding_box_test): all "
    "three, train alone, or query and gallery"
)


def split_folders(root: Path) -> dict[str, Path]:
    """Finds the folders of the splits; a split without one is left out."""
    found = {
        split: next((root / name for name in names if (root / name).is_dir()), None)
        for split, names in FOLDERS.items()
    }
    return {split: folder for split, folder in found.items() if folder is not None}


def is_own_root(directory: Path) -> bool:
    """Tells whether a directory has the folders of own images."""
    found = set(split_folders(directory))
    return "train" in found or {"query", "gallery"} <= found


def list_own(root: Path) -> Listing:
    """Lists a directory with a folder for each split.

    The folder of a split contains either images, whose names begin with the number of the identity
    (`0007_c2_15.jpg`, `7_15.png`), or one folder for each identity. Folders named by numbers keep
    them; if any has another name, all but -1 (junk) are numbered from 1 in the order of their
    names, the same in every split. Folders without images are left out, and images in a folder of
    an identity's folder are a problem. A camera anywhere in a file name (`c2`, `cam2`) is taken as
    written; either all images of the dataset have one or none has.
    """
    listing = Listing()
    folders = split_folders(root)
    for choices in FOLDERS.values():
        there = [name for name in choices if (root / name).is_dir()]
        if len(there) > 1:
            listing.problems.append(f"{root} has both {' and '.join(there)}, of which one is used")
    if ("query" in folders) != ("gallery" in folders):
        found = ", ".join(sorted(folders))
        listing.problems.append(f"{root}: query and gallery go together, found only {found}")
    missing = [split for split in FOLDERS if split not in folders]
    if missing:
        listing.notes.append(f"no folder for {' and '.join(missing)}: no such split")
    identities = {split: _identity_folders(folder, listing) for split, folder in folders.items()}
    numbers = _number_identities(identities.values(), listing)
    if numbers and not all(identities.values()) and not _all_numbers(numbers):
        listing.problems.append(
            f"{root}: identities are folder names in one split and numbers in another"
        )
    for split, folder in folders.items():
        if names := identities[split]:
            listing.splits[split] = _list_identities(folder, split, names, numbers, listing)
        else:
            paths = image_files(folder, listing)
            listing.splits[split] = label_files(paths, listing, split, parse_own_name, 0)
    _check_cameras(listing)
    return listing


def _folders_in(directory: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in os.scandir(directory)
        if os.path.isdir(entry.path) and not entry.name.startswith(".")
    )


def _identity_folders(split: Path, listing: Listing) -> list[str]:
    """The folders of a split that have images; images further down are problems."""
    found = []
    for name in _folders_in(split):
        folder = split / name
        if any(map(is_image_name, os.listdir(folder))):
            found.append(name)
        for deeper in _folders_in(folder):
            if any(any(map(is_image_name, files)) for _, _, files in os.walk(folder / deeper)):
                listing.problems.append(
                    f"{folder / deeper}: images in a folder of a folder, which would be left out"
                )
    return found


def _all_numbers(names: Iterable[str]) -> bool:
    return all(re.fullmatch(r"-?\d+", name) for name in names)


def _number_identities(splits: Iterable[list[str]], listing: Listing) -> dict[str, int]:
    """Gives each folder name of an identity its number."""
    names = sorted({name for split in splits for name in split})
    if _all_numbers(names):
        return {name: int(name) for name in names}
    persons = sorted({_one_spelling(name) for name in names} - {str(JUNK_PID)})
    listing.notes.append(
        f"identities are numbered by the order of their {len(persons)} folder names, from 1"
    )
    numbers = {name: number for number, name in enumerate(persons, start=1)}
    return {name: numbers.get(_one_spelling(name), JUNK_PID) for name in names}


def _one_spelling(name: str) -> str:
    """The name in Unicode's composed form: macOS writes "é" as two characters."""
    return unicodedata.normalize("NFC", name)


def _list_identities(
    folder: Path, split: str, names: list[str], numbers: dict[str, int], listing: Listing
) -> list[Item]:
    """Lists a folder that has a folder for each identity, of these names."""
    others = Listing()
    listing.problems += [
        f"{path}: not in a folder of an identity" for path in image_files(folder, others)
    ]
    listing.others += sorted(set(others.others) - {f"{folder.name}/{name}" for name in names})
    items: list[Item] = []
    seen: dict[int, str] = {}
    for name in names:
        pid = numbers[name]
        if pid in seen:
            listing.problems.append(f"{folder}: {seen[pid]} and {name} are the same number")
        seen[pid] = name

        def parse(file_name: str, pid: int = pid) -> Label:
            return Label(pid, find_camera(file_name))

        labeled = label_files(image_files(folder / name, listing), listing, split, parse, 0)
        items += [item._replace(name=f"{name}/{item.name}") for item in labeled]
    return items


def _check_cameras(listing: Listing) -> None:
    """Notes that there are no cameras; if only some images have one, that is a problem."""
    items = [item for items in listing.splits.values() for item in items]
    unknown = [item for item in items if item.camid == NO_CAMERA]
    if unknown and len(unknown) < len(items):
        known = next(item for item in items if item.camid != NO_CAMERA)
        listing.problems.append(
            f"{len(unknown)} of {len(items)} images have no camera in their names: "
            f"{unknown[0].file} has none, {known.file} has camera {known.camid}; expected all or "
            "none"
        )
    elif unknown:
        listing.notes.append("no camera ids: the same-camera rule cannot be applied")
