"""CUHK03's original files: images inside `cuhk-03.mat` (HDF5), the protocol in a second `.mat`.

`cuhk-03.mat` has a cell array for each variant, `labeled` and `detected`: one cell for each of five
pairs of cameras, and in it a cell array of persons by ten images, the first five of one view and
the rest of the other. Images are missing where a cell is empty. MATLAB stores arrays transposed.
"""

import io
import math
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import scipy.io
from PIL import Image

from data_prep.errors import InputError
from data_prep.files import read_file
from data_prep.listing import LARGEST_NUMBER, Item, Listing

SPLITS = ("train", "query", "gallery")
LARGEST_PROTOCOL = 2**22
"""The most bytes of a protocol file; the published ones have less than 2**19."""
LARGEST_ENTRIES = 10**6
"""The most entries of an array of the protocol, as its compressed size does not bound them."""
LARGEST_SIDE = 4096
"""The most rows or columns of an image."""
_NAME = re.compile(r"([1-5])_0*([1-9]\d*)_([12])_0*([1-9]\d*)\.png")


class MatlabImage(NamedTuple):
    """An image inside `cuhk-03.mat`, read like a file: as PNG, since it is not encoded there."""

    file: Path
    variant: str
    pair: int
    """Pair of cameras, from 1."""
    person: int
    """Within the pair, from 1."""
    number: int
    """Of the person's ten images, from 1."""

    def __str__(self) -> str:
        where = f"pair {self.pair}, person {self.person}, image {self.number}"
        return f"{self.file}: {self.variant}, {where}"

    def read_bytes(self) -> bytes:
        """Reads the image as PNG, which is lossless.

        Raises:
          InputError: there is no such image in the file.
        """
        file = _open(self.file)
        # A damaged file makes h5py raise errors of many kinds.
        try:
            persons = _dataset(file, _dataset(file, self.variant)[0, self.pair - 1])
            stored = _dataset(file, persons[self.number - 1, self.person - 1])
        except Exception as error:
            raise InputError(f"not in the file: {error}") from error
        shape = stored.shape
        if len(shape) != 3 or shape[0] != 3 or 0 in shape or stored.dtype != np.uint8:
            raise InputError(f"not an RGB image but {stored.dtype} of shape {shape}")
        if max(shape) > LARGEST_SIDE:
            raise InputError(f"shape {shape}, expected at most {LARGEST_SIDE} rows and columns")
        try:
            pixels = stored[()].transpose(2, 1, 0)
        except Exception as error:
            raise InputError(f"cannot be read: {error}") from error
        png = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(png, "PNG")
        return png.getvalue()


@lru_cache(maxsize=1)
def _open(path: Path) -> h5py.File:
    """Opens the file and keeps it open, as a process reads thousands of images from it."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError(
            f"{path} is not a complete MATLAB file of version 7.3: {error}."
        ) from error


def _dataset(file: h5py.File, place: Any) -> h5py.Dataset:
    """The array at a name or reference, if its values are in the file itself.

    Raises:
      ValueError: another object, or one whose values are in other files.
    """
    if isinstance(place, str):
        if not isinstance(file.get(place, getlink=True), h5py.HardLink):
            raise ValueError(f"{place!r} is a link")
    elif not isinstance(place, h5py.Reference):
        raise ValueError(f"{place!r} is not a reference")
    found = file[place]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{found.name!r} is not an array")
    if found.is_virtual or found.external:
        raise ValueError(f"the values of {found.name!r} are in other files")
    return found


def find_matlab_files(directory: Path, variant: str) -> tuple[Path, Path] | None:
    """Finds `cuhk-03.mat` and the protocol of the variant in their usual directories."""
    protocol = f"cuhk03_new_protocol_config_{variant}.mat"
    places = (directory, directory / "cuhk03_release", directory.parent)
    images = [place / "cuhk-03.mat" for place in places if (place / "cuhk-03.mat").is_file()]
    protocols = [place / protocol for place in places if (place / protocol).is_file()]
    return (images[0], protocols[0]) if images and protocols else None


def list_matlab(images: Path, protocol: Path, variant: str) -> Listing:
    """Lists the images of a variant under the new protocol.

    The protocol has names such as `1_001_2_07.png` (pair of cameras, person, view, image), an
    identity for each, and the 1-based positions of every split.

    Raises:
      InputError: either file is not readable, or the protocol lacks an array or has one with other
        values than expected.
    """
    _open(images)
    config = _read_protocol(protocol)
    names = _read_names(protocol, config["filelist"])
    pids = _read_numbers(protocol, "labels", config["labels"], first=0)
    if len(names) != len(pids):
        raise InputError(
            f"{protocol} has {len(names)} names in filelist, but {len(pids)} labels; expected one "
            "label for each name."
        )
    listing = Listing()
    for split in SPLITS:
        items: list[Item] = []
        listing.splits[split] = items
        for position in _read_numbers(protocol, f"{split}_idx", config[f"{split}_idx"], first=1):
            index = position - 1
            name = names[index] if 0 <= index < len(names) else ""
            found = _NAME.fullmatch(name)
            if not found:
                listing.problems.append(
                    f"{protocol}: image {index + 1} of the {split} split is {name!r}, expected a "
                    "name such as 1_001_2_07.png"
                )
                continue
            pair, person, view, number = (int(part) for part in found.groups())
            image = MatlabImage(images, variant, pair, person, number)
            items.append(Item(image, pids[index], view - 1, name))
    return listing


def _read_protocol(path: Path) -> dict[str, Any]:
    """The arrays of a protocol file by name."""
    content = read_file(path, LARGEST_PROTOCOL)
    required = ["filelist", "labels", *(f"{split}_idx" for split in SPLITS)]
    # A damaged file makes SciPy raise errors of many kinds.
    try:
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(io.BytesIO(content))}
    except Exception as error:
        raise InputError(f"{path} is not a MATLAB file before version 7.3: {error}.") from error
    missing = [name for name in required if name not in shapes]
    if missing:
        raise InputError(f"{path} is not a protocol of CUHK03: no {', '.join(missing)} in it.")
    for name in required:
        if math.prod(shapes[name]) > LARGEST_ENTRIES:
            raise InputError(
                f"{path}: {name} has the shape {shapes[name]}, expected at most "
                f"{LARGEST_ENTRIES:,} entries."
            )
    try:
        return dict(scipy.io.loadmat(io.BytesIO(content), variable_names=required))
    except Exception as error:
        raise InputError(f"{path} is not a complete MATLAB file: {error}.") from error


def _read_names(path: Path, cells: Any) -> list[str]:
    """The strings of a cell array."""
    if not (isinstance(cells, np.ndarray) and cells.dtype == object):
        raise InputError(f"{path}: filelist is not a cell array.")
    names = [cell.ravel().tolist() if isinstance(cell, np.ndarray) else cell for cell in cells.flat]
    for number, name in enumerate(names, start=1):
        if not (isinstance(name, list) and len(name) == 1 and isinstance(name[0], str)):
            raise InputError(
                f"{path}: entry {number} of filelist is {name!r:.100}, expected a name."
            )
    return [name[0] for name in names]


def _read_numbers(path: Path, name: str, array: Any, first: int) -> list[int]:
    """The whole numbers of an array; they are at least `first`."""
    if not (isinstance(array, np.ndarray) and array.dtype.kind in "iuf"):
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{path}: {name} has the type {kind}, expected numbers.")
    for number, value in enumerate(array.flat, start=1):
        if not (first <= value <= LARGEST_NUMBER and value == int(value)):
            raise InputError(
                f"{path}: entry {number} of {name} is {value}, expected a whole number of at "
                f"least {first}."
            )
    return [int(value) for value in array.flat]
