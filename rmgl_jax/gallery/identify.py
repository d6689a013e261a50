"""Ids of images by their content, and the entries that crops become in a gallery."""

import hashlib
import os
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from data_prep.errors import ExpectedError, InputError, MissingFileError
from data_prep.images import read_orientation
from rmgl_jax.gallery.collection import MAX_LABELS, MAX_PATH, MAX_TEXT
from rmgl_jax.gallery.crops import Crop, formats
from rmgl_jax.gallery.entries import Entry, check_text

_ID_DIGITS = 32
# The EXIF orientations that turn an image by 90 degrees.
_TURNED = (5, 6, 7, 8)


def is_id(text: str) -> bool:
    """Tells whether a text has the form of an entry's id."""
    return len(text) == _ID_DIGITS and not set(text) - set("0123456789abcdef")


def identify(crop: Crop) -> Entry | ExpectedError:
    """Makes the entry of a crop, or says why it cannot be stored."""
    try:
        path = os.path.abspath(crop.path)
        check_text("A path", path, MAX_PATH)
        for text in (crop.camera, *crop.labels):
            check_text(f"A camera or label (of {path})", text, MAX_TEXT)
        if len(crop.labels) > MAX_LABELS:
            raise InputError(f"{path} has {len(crop.labels)} labels, more than {MAX_LABELS}.")
        return Entry(
            _content_id(Path(path), crop.box),
            path,
            crop.box,
            crop.camera,
            crop.time,
            crop.labels,
        )
    except ExpectedError as error:
        return error


def _content_id(path: Path, box: tuple[int, int, int, int] | None) -> str:
    try:
        # Devices and pipes have no end.
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not an image file.")
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no image {path}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if box is not None:
        digest.update(f" box {','.join(map(str, box))}".encode())
    return digest.hexdigest()[:_ID_DIGITS]


def is_wide(crop: Crop) -> bool:
    """Tells whether a crop is wider than high, which person crops rarely are."""
    if crop.box is not None:
        left, top, right, bottom = crop.box
        return right - left > bottom - top
    try:
        # This reads the header only.
        with Image.open(crop.path, formats=formats()) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # Newer versions of Pillow give the upright size.
                width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
            turned = read_orientation(image) in _TURNED
            return (height > width) if turned else (width > height)
    # A header that is damaged is reported by whoever decodes the image.
    except Exception:
        return False
