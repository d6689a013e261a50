"""Person crops on disk: image files, and boxes in images, with camera, time and labels if known."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from numbers import Integral
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data_prep.errors import InputError, MissingFileError
from data_prep.images import decode_upright, open_image, read_encoded
from data_prep.names import parse_market_name
from rmgl_jax.gallery.entries import check_several
from rmgl_jax.gallery.times import check_time

_BOX_END = 2**31  # files of embeddings have 32 bits for an edge
_PID_END = 2**63
# EPS starts another program; the others are stubs without a decoder, or need another system.
_NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}


@dataclass(frozen=True)
class Crop:
    """An image file, or a box in it, with what is known about it."""

    path: Path
    """The image file."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom in whole pixels of the upright image; None is all of it."""
    pid: int | None = None
    """Identity; None is unknown."""
    camera: str = ""
    """Camera; "" is unknown. The camera id of a dataset as its decimal digits."""
    time: float | None = None
    """Seconds since 1970-01-01 UTC; None is unknown."""
    labels: tuple[str, ...] = ()
    """Words to search for."""

    def __post_init__(self) -> None:
        """Checks all fields, and converts them to their types; a box is rounded to whole pixels.

        Raises:
            InputError: names the value that cannot be stored.
        """
        object.__setattr__(self, "path", Path(self.path))
        if self.box is not None:
            object.__setattr__(self, "box", whole_edges(self.box))
        if self.pid is not None:
            if not (isinstance(self.pid, Integral) and -_PID_END <= self.pid < _PID_END):
                raise InputError(f"A pid must be a whole number of 64 bits, got {self.pid!r}.")
            object.__setattr__(self, "pid", int(self.pid))
        if not isinstance(self.camera, str):
            raise InputError(f"A camera must be text, got {self.camera!r}.")
        if self.time is not None:
            check_time(self.time)
            object.__setattr__(self, "time", float(self.time))
        check_several("labels", self.labels)
        object.__setattr__(self, "labels", tuple(self.labels))

    def __str__(self) -> str:
        return str(self.path) if self.box is None else f"{self.path} {list(self.box)}"


def named_crop(path: str | Path) -> Crop:
    """Makes the crop of a whole file, with identity and camera if its name has them."""
    path = Path(path)
    label = parse_market_name(path.name)
    # More digits than a pid can have are something else, such as a time.
    if label is None or abs(label.pid) >= _PID_END:
        return Crop(path)
    return Crop(path, pid=label.pid, camera=str(label.camera))


def whole_edges(edges: Iterable[float | str]) -> tuple[int, int, int, int]:
    """Rounds the four edges of a box, numbers or texts of numbers, to whole pixels.

    Raises:
        InputError: not four numbers, or one that cannot be stored.
    """
    try:
        left, top, right, bottom = (round(float(edge)) for edge in edges)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"A box has four numbers (left, top, right, bottom), got {edges}."
        ) from error
    box = (left, top, right, bottom)
    if not all(-_BOX_END <= edge < _BOX_END for edge in box):
        raise InputError(
            f"The edges of a box must be from -{_BOX_END:,} to {_BOX_END:,}, got {list(box)}."
        )
    return box


def read_crop(crop: Crop) -> Image.Image:
    """Reads the pixels of a crop: upright by its EXIF tag, cut to its box.

    The part of the box that lies outside the image is left out, as detectors give such boxes.

    Raises:
        MissingFileError: the file does not exist.
        InputError: the file is not an image that Pillow reads, is damaged, has more than
            `PIL.Image.MAX_IMAGE_PIXELS` pixels, or the box lies outside it.
    """
    return cut(read_image(crop.path), crop)


def read_image(path: Path) -> Image.Image:
    """Reads an image file as `decode_upright` does; raises as `read_crop` does."""
    try:
        with open_image(read_encoded(path), formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise InputError(
                    f"{path} has {image.width} x {image.height} pixels, more than {limit:,}."
                )
            return decode_upright(image)
    except (InputError, MissingFileError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not an image: it is of none of the {len(formats())} formats that are read "
            "(JPEG, PNG, WebP, TIFF ...)."
        ) from error
    # A decoder fed with noise may raise anything: struct.error, SyntaxError, IndexError ...
    except Exception as error:
        raise InputError(f"{path} is not a readable image: {error}.") from error


def cut(image: Image.Image, crop: Crop) -> Image.Image:
    """Cuts an upright image to the box of a crop.

    Raises:
        InputError: the box lies outside the image.
    """
    if crop.box is None:
        return image
    left, top, right, bottom = crop.box
    inside = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise InputError(
            f"{crop.path} is {image.width} x {image.height} pixels, of which the box "
            f"{list(crop.box)} (left, top, right, bottom) has none."
        )
    return image.crop(inside)


def shape_note(name: str, image: Image.Image) -> str | None:
    """Says that an image does not have the shape of a person crop; None if it does."""
    if image.width <= image.height:
        return None
    return (
        f"{name} is {image.width} x {image.height} pixels, wider than high: person crops are "
        "usually higher than wide."
    )


@cache
def formats() -> tuple[str, ...]:
    """Names of the image formats that are read."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - _NOT_READ))
