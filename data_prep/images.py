"""Read image files, convert them to RGB, and check that every one of them decodes."""

import io
import warnings
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.errors import ExpectedError
from data_prep.files import read_file
from data_prep.listing import Encoded
from data_prep.workers import map_chunks

# The formats of the accepted file suffixes. Naming them also keeps Pillow from giving a mislabeled
# file to a plugin that starts another program (EPS does).
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
LARGEST = 2**28
"""The most bytes of an image file."""

# What turns an image upright, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_METADATA = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
"""Names in `Image.info` of the metadata that hold an orientation."""


def read_encoded(file: Encoded) -> bytes:
    """Reads an encoded image; of files only regular ones with at most `LARGEST` bytes.

    Raises:
      ExpectedError: not such a file, or not in its container; says why.
      OSError: the file cannot be read.
    """
    return read_file(file, LARGEST) if isinstance(file, Path) else file.read_bytes()


def open_image(encoded: bytes, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Opens an image file of one of Pillow's `formats` without decoding its pixels."""
    return Image.open(io.BytesIO(encoded), formats=list(formats))


def to_rgb(image: Image.Image) -> Image.Image:
    """Decodes an image and converts it to 8-bit RGB, upright by its EXIF orientation.

    Gray, palette and transparent images become RGB.
    """
    return decode_upright(image).convert("RGB")


def decode_upright(image: Image.Image) -> Image.Image:
    """Decodes an image, turns it upright by its EXIF orientation, and reduces 16-bit gray to 8-bit.

    An image with damaged metadata is not turned. Of 16 bits the upper eight are kept, as Pillow
    does with 16-bit colors; converting 16-bit gray it would clip all above 255 to white.
    """
    image.load()
    orientation = read_orientation(image)
    # Pillow opens 16-bit gray PGM, scaled to 65,535, as "I"; older versions also PNG.
    is_deep = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PNG", "PPM")
    )
    if is_deep:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    # `ImageOps.exif_transpose` also rewrites the other metadata, which fails if one is damaged.
    transpose = _UPRIGHT.get(orientation)
    upright = image.copy() if transpose is None else image.transpose(transpose)
    for name in _METADATA:  # Read again, they would turn it again.
        upright.info.pop(name, None)
    return upright


def read_orientation(image: Image.Image) -> int:
    """Reads the EXIF orientation, 1 to 8; it is 1, upright, if there is none or it is damaged."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:  # Damaged metadata may raise anything.
        return 1


def image_problem(path: Encoded) -> str | None:
    """Says what is wrong with an image file; None if it is whole."""
    try:
        encoded = read_encoded(path)
    except FileNotFoundError:
        return "cannot be read (No such file or directory)"
    except (ExpectedError, ValueError) as error:
        return str(error).removeprefix(f"{path} ")
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if not encoded:
        return "is empty"
    try:
        with warnings.catch_warnings():
            # Odd metadata is harmless, pixels by the hundred million are not.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with open_image(encoded) as image:
                to_rgb(image)
    except Image.UnidentifiedImageError:
        return f"is not an image ({len(encoded)} bytes, none of {', '.join(FORMATS)})"
    # A decoder fed with noise may raise anything: struct.error, SyntaxError, IndexError ...
    except Exception as error:
        return f"does not decode ({type(error).__name__}: {error})"
    return None


def bad_images(
    paths: Sequence[Encoded], description: str, processes: int | None = None
) -> list[tuple[Encoded, str]]:
    """Finds every file that does not decode as an image, with the reason, in the order given.

    Args:
      paths: the files.
      description: label of the progress bar.
      processes: number of processes that decode; see `map_chunks`.
    """
    return list(chain.from_iterable(map_chunks(_check_chunk, paths, description, processes)))


def _check_chunk(paths: Sequence[Encoded]) -> list[tuple[Encoded, str]]:
    found = ((path, image_problem(path)) for path in paths)
    return [(path, problem) for path, problem in found if problem]
