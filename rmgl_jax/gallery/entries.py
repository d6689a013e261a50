"""Records of a gallery: an image with its metadata, a search result, and filters."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.errors import InputError


@dataclass(frozen=True)
class Entry:
    """An image of a gallery."""

    id: str
    """Hex digest of the file's bytes and the box, 32 digits."""
    path: str
    """Absolute path at the time of adding."""
    box: tuple[int, int, int, int] | None
    """Left, top, right and bottom in pixels; None is the whole image."""
    camera: str
    """Camera; "" is unknown."""
    time: float | None
    """Seconds since 1970-01-01 UTC; None is unknown."""
    labels: tuple[str, ...]
    """Words to search for."""


@dataclass(frozen=True)
class Match:
    """A search result."""

    entry: Entry
    """The image that was found."""
    score: float
    """Cosine similarity to the query, in [-1, 1]."""


@dataclass(frozen=True)
class Filters:
    """Conditions on images, which must all hold.

    Raises:
        InputError: a time is not finite, cameras or labels are one text instead of several, or a
            text is not valid Unicode.
    """

    cameras: tuple[str, ...] = ()
    """Only these cameras; empty is all."""
    not_cameras: tuple[str, ...] = ()
    """None of these cameras."""
    after: float | None = None
    """Only images of a known time from this one on, in seconds since 1970-01-01 UTC."""
    before: float | None = None
    """Only images of a known time before this one."""
    labels: tuple[str, ...] = ()
    """Only images with all of these labels."""

    def __post_init__(self) -> None:
        for time in (self.after, self.before):
            if time is not None and not math.isfinite(time):
                raise InputError(f"A time must be finite, got {time}.")
        for name in ("cameras", "not_cameras", "labels"):
            check_several(name, getattr(self, name))
        for text in (*self.cameras, *self.not_cameras, *self.labels):
            check_text("A camera or label", text)


class Skipped(NamedTuple):
    """An image that was not added."""

    path: str
    """Its path."""
    reason: str
    """A sentence that says why not."""


@dataclass(frozen=True)
class AddResult:
    """Outcome of adding images to a gallery."""

    added: int
    """Number of images that are new in the gallery."""
    present: int
    """Number of images that were there before, or came more than once."""
    skipped: tuple[Skipped, ...] = ()
    """Images that cannot be read, with the reasons."""
    wide: tuple[str, ...] = ()
    """Added images that are wider than high, which person crops rarely are."""


def check_several(name: str, texts: Iterable[object]) -> None:
    """Checks that a field has several texts: one text would be taken apart into its letters.

    Args:
        name: name of the field in the error message.
        texts: the value.

    Raises:
        InputError: the value is one text, or something else than texts.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name} must be texts, such as ('a',), got {texts!r}.")


def check_text(name: str, text: str, most: int | None = None) -> None:
    """Checks that a text can be stored.

    Args:
        name: name of the text in the error message.
        text: the text.
        most: greatest number of bytes in UTF-8.

    Raises:
        InputError: the text is not valid Unicode (a file name may be any bytes), or is too long.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"{name} must be valid Unicode, got {text!r}.") from error
    if most is not None and size > most:
        raise InputError(f"{name} may have at most {most:,} bytes, got {size:,}: {text[:40]!r} ...")
