"""Images as data URIs, which keep the page self-contained."""

import base64
import io

import numpy as np
from PIL import Image

_QUALITY = 82


def data_uri(pixels: np.ndarray, height: int | None = None) -> str:
    """Encodes an image as a data URI of a JPEG.

    Args:
        pixels: uint8 [H, W, 3].
        height: pixels to which the image is resized; its own height by default.
    """
    image = Image.fromarray(np.asarray(pixels))
    if height is not None and height != image.height:
        width = max(1, round(image.width * height / image.height))
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnail(pixels: np.ndarray, height: int = 128) -> str:
    """Encodes an image as `data_uri` does, at most `height` pixels high."""
    return data_uri(pixels, min(height, len(pixels)))
