"""CUHK03's original files: images inside `cuhk-03.mat` (HDF5), the protocol in a second `.mat`.

`cuhk-03.mat` has a cell array for each variant, `labeled` and `detected`: one cell for each of five
pairs of cameras, and in it a cell array of persons by ten images, the first five of one view and
the rest of the other. Images are missing where a cell is empty. MATLAB stores arrays transposed.
"""

import io
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io
from PIL import Image

from data_prep.errors import InputError
from data_prep.listing import Item, Listing

SPLITS = ("train", "query", "gallery")
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
        try:
            persons = file[file[self.variant][0, self.pair - 1]]
            stored = file[persons[self.number - 1, self.person - 1]][()]
        except (KeyError, IndexError, ValueError) as error:
            raise InputError(f"not in the file: {error}") from error
        if stored.ndim != 3 or stored.shape[0] != 3 or stored.dtype != np.uint8:
            raise InputError(f"not an RGB image but {stored.dtype} of shape {stored.shape}")
        png = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(stored.transpose(2, 1, 0))).save(png, "PNG")
        return png.getvalue()


@lru_cache(maxsize=1)
def _open(path: Path) -> h5py.File:
    """Opens the file and keeps it open, as a process reads thousands of images from it."""
    return h5py.File(path, "r")


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
      InputError: a protocol file without one of its arrays.
    """
    config = scipy.io.loadmat(protocol)
    required = ["filelist", "labels", *(f"{split}_idx" for split in SPLITS)]
    missing = [name for name in required if name not in config]
    if missing:
        raise InputError(f"{protocol} is not a protocol of CUHK03: no {', '.join(missing)} in it.")
    names = [str(cell[0]) for cell in config["filelist"].ravel()]
    pids = config["labels"].ravel().astype(int)
    listing = Listing()
    for split in SPLITS:
        items: list[Item] = []
        listing.splits[split] = items
        for index in config[f"{split}_idx"].ravel().astype(int) - 1:
            name = names[index] if 0 <= index < min(len(names), len(pids)) else ""
            found = _NAME.fullmatch(name)
            if not found:
                listing.problems.append(
                    f"{protocol}: image {index + 1} of the {split} split is {name!r}, expected a "
                    "name such as 1_001_2_07.png"
                )
                continue
            pair, person, view, number = (int(part) for part in found.groups())
            image = MatlabImage(images, variant, pair, person, number)
            items.append(Item(image, int(pids[index]), view - 1, name))
    return listing
