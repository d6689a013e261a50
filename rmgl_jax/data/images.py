"""From an encoded image to the pixels that the network's input is made of."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from data_prep.images import FORMATS

DECODING = "pillow-bicubic-1"
"""Names what `to_pixels` does. Changed with it, so that nothing decoded otherwise is used again."""


def decode(encoded: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decodes an image and resizes it as `to_pixels` does.

    Raises:
        OSError: If the image is truncated or none at all; a decoder fed with noise may raise other
            exceptions too.
    """
    with warnings.catch_warnings():
        # Broken metadata is harmless.
        warnings.simplefilter("ignore")
        with open_image(encoded) as image:
            return to_pixels(image, size)


def open_image(encoded: bytes) -> Image.Image:
    """Opens an encoded image of one of the formats in use; its pixels are decoded later."""
    return Image.open(io.BytesIO(encoded), formats=FORMATS)


def to_pixels(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """Converts an image to RGB and resizes it to `size` = (height, width), uint8 [H, W, 3].

    A turned photograph is set upright by its EXIF tag; gray, palette and transparent images become
    RGB. The resize is Pillow's bicubic one: a filter that widens as it shrinks, so that large
    crops do not alias.
    """
    height, width = size
    upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC))
