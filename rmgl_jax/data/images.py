"""From an encoded image to the pixels that the network's input is made of."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from data_prep.images import FORMATS

DECODING = "pillow-bicubic-1"
"""Names what `decode` does. Changed with it, so that nothing decoded otherwise is used again."""


def decode(encoded: bytes, size: tuple[int, int]) -> np.ndarray:
    """Decodes an image and resizes it to `size` = (height, width), uint8 [H, W, 3] in RGB order.

    A turned photograph is set upright by its EXIF tag; gray, palette and transparent images become
    RGB. The resize is Pillow's bicubic one: a filter that widens as it shrinks, so that large
    crops do not alias.

    Raises:
        OSError: If the image is truncated or none at all; a decoder fed with noise may raise other
            exceptions too.
    """
    height, width = size
    with warnings.catch_warnings():
        # Broken metadata is harmless.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(upright.resize((width, height), Image.Resampling.BICUBIC))
