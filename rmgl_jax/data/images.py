"""Decodes images and resizes them to the network's input size."""

import io
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from data_prep.images import FORMATS

DECODING = "pillow-bicubic-1"
"""Version of `to_pixels`; change both together, so that stores of other pixels are not reused."""


def decode(encoded: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decodes an image, converts it to RGB and resizes it; see `to_pixels`.

    Args:
        encoded: Content of an image file.
        size: Height and width of the result.

    Returns:
        uint8 [H, W, 3].

    Raises:
        OSError: If the file is truncated or not an image. Decoders may raise other exceptions on
            damaged files.
    """
    with warnings.catch_warnings():
        # Pillow warns of broken metadata, which does not affect the pixels.
        warnings.simplefilter("ignore")
        with open_image(encoded) as image:
            return to_pixels(image, size)


def open_image(encoded: bytes, formats: Sequence[str] = FORMATS) -> Image.Image:
    """Opens an image file of one of Pillow's `formats` without decoding its pixels."""
    return Image.open(io.BytesIO(encoded), formats=list(formats))


def to_pixels(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Converts an image to RGB and resizes it to `size` = (height, width), uint8 [H, W, 3].

    The EXIF orientation is applied; gray, palette and transparent images become RGB. The resize is
    Pillow's bicubic filter with antialiasing.
    """
    height, width = size
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC))
