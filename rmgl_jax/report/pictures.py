"""Images as data URIs, so that a page needs no other file."""

import base64
import io

import numpy as np
from PIL import Image

_QUALITY = 82


def data_uri(pixels: np.ndarray, height: int | None = None) -> str:
    """A JPEG of uint8 pixels [H, W, 3], as a URI.

    Args:
        pixels: the image.
        height: in pixels, to which it is resized; its own by default.
    """
    image = Image.fromarray(np.asarray(pixels))
    if height is not None and height != image.height:
        width = max(1, round(image.width * height / image.height))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(pixels: np.ndarray, height: int = 128) -> str:
    """As `data_uri`, at most `height` pixels high."""
    return data_uri(pixels, min(height, len(pixels)))
