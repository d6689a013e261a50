"""Decodes images and resizes them to the network's input size."""

import warnings

import numpy as np
from PIL import Image

from data_prep.images import open_image, to_rgb

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


def to_pixels(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Converts an image to RGB and resizes it to `size` = (height, width), uint8 [H, W, 3].

    The image is converted by `data_prep.images.to_rgb`. The resize is Pillow's bicubic filter with
    antialiasing.
    """
    height, width = size
    return np.asarray(to_rgb(image).resize((width, height), Image.Resampling.BICUBIC))
