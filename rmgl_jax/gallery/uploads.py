"""Images that visitors of the search page upload: checked, decoded and kept in memory."""

import io
import secrets
import warnings
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from data_prep.errors import InputError
from data_prep.images import FORMATS, to_rgb
from rmgl_jax.data.images import open_image
from rmgl_jax.gallery.crops import shape_note

MAX_BYTES = 10_000_000
"""Bytes of an upload."""
MAX_PIXELS = 20_000_000
"""Pixels of an upload; checked before they are decoded."""
_DRAINED_BYTES = 100_000_000  # read and dropped of a request that is too large
_FORM_BYTES = 100_000  # all that a request holds next to the file
_PREVIEW = (320, 320)  # width and height of the largest preview


@dataclass(frozen=True, eq=False)
class Upload:
    """A decoded upload."""

    image: Image.Image
    """RGB pixels of the network's input size, which have the embedding of the whole image."""
    preview: bytes
    """A small JPEG."""
    note: str
    """A sentence on an unusual shape; empty for that of a person crop."""


def decode_upload(encoded: bytes, size: tuple[int, int]) -> Upload:
    """Decodes an upload whose bytes may be anything.

    Args:
        encoded: content of the file.
        size: height and width of the network's input.

    Raises:
        InputError: it is empty, not an image, damaged, or has more than `MAX_PIXELS` pixels.
    """
    if not encoded:
        raise InputError("The upload is empty; choose an image file.")
    formats = ", ".join(FORMATS)
    try:
        with warnings.catch_warnings():
            # Broken metadata is harmless, and the number of pixels is checked here.
            warnings.simplefilter("ignore")
            with open_image(encoded) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise InputError(
                        f"The upload has {width} x {height} pixels, more than {MAX_PIXELS:,}."
                    )
                upright = to_rgb(image)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"The upload has more than {MAX_PIXELS:,} pixels.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"The upload is not an image: it is none of {formats}.") from error
    # A decoder fed with noise may raise anything: struct.error, SyntaxError, IndexError ...
    except Exception as error:
        raise InputError(f"The upload is not a whole image of {formats}.") from error
    network_size = (size[1], size[0])
    resized = upright.resize(network_size, Image.Resampling.BICUBIC)
    return Upload(resized, jpeg(upright), shape_note("The upload", upright) or "")


def jpeg(image: Image.Image, bound: tuple[int, int] = _PREVIEW) -> bytes:
    """Encodes an image as a JPEG without metadata, reduced to at most `bound` = (width, height)."""
    small = to_rgb(image)
    small.thumbnail(bound)
    # Pillow writes the EXIF data and the profile that it finds here.
    small.info.clear()
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


class UploadStore:
    """The latest uploads, each under a name that cannot be guessed.

    A visitor who changes the filters need not upload the image again. Nothing is written to disk.
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._uploads: OrderedDict[str, Upload] = OrderedDict()

    def add(self, upload: Upload) -> str:
        """Keeps an upload in place of the oldest one, and returns its name."""
        name = secrets.token_urlsafe(16)
        self._uploads[name] = upload
        while len(self._uploads) > self._limit:
            self._uploads.popitem(last=False)
        return name

    def get(self, name: str) -> Upload | None:
        """The upload of a name, if it is still there."""
        upload = self._uploads.get(name)
        if upload is not None:
            self._uploads.move_to_end(name)
        return upload


def limit_body(request: Request) -> Request:
    """The same request, whose body ends with an error beyond the bytes of an upload.

    A body that is too large is read to its end, as browsers show no response before, and dropped.
    """
    receive, limit = request.receive, MAX_BYTES + _FORM_BYTES
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            await _drain(receive, message)
            raise HTTPException(413, f"The upload is larger than {MAX_BYTES:,} bytes.")
        return message

    return Request(request.scope, receive_limited)


async def _drain(receive: Receive, message: Message) -> None:
    dropped = 0
    while message.get("more_body") and dropped < _DRAINED_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
