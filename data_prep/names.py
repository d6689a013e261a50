"""Parse file names: is it an image, of which identity, and from which camera."""

import re
from typing import NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")

# `0002_c1s1_000451_03.jpg` (Market-1501), `0001_c2_f0046182.jpg` (DukeMTMC-reID),
# `-1_c3s2_000018_02.jpg` (junk). The end of the digits keeps `c12` from being read as camera 1.
_MARKET = re.compile(r"(?P<pid>-?\d+)_c(?P<camera>\d+)(?!\d)", re.IGNORECASE)
# Own images may leave the camera out (`0007_12.jpg`, `7.png`) or write `cam3` for `c3`. Neither a
# letter nor a digit stands next to what is read: `abc3`, `15c2` and `7a` are other words.
_OWN = re.compile(r"-?\d+(?![^\W_])")
_CAMERA = re.compile(r"(?<![^\W_])c(?:am)?(?P<camera>\d+)(?:[sf]\d+)*(?![^\W_])", re.IGNORECASE)


class Label(NamedTuple):
    """Identity and camera as numbered in a file name; the camera is None where there is none."""

    pid: int
    camera: int | None


def is_image_name(name: str) -> bool:
    """Tells whether a file is an image, by its last suffix in any case.

    Hidden files are not: macOS leaves `._0002_c1s1_000451_03.jpg` next to every image it copies.
    """
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


def parse_market_name(name: str) -> Label | None:
    """Parses a base name such as `0002_c1s1_000451_03.jpg`; None if it has another form.

    Pass the base name, never the path: a directory `12_c3` reads like a label.
    """
    found = _MARKET.match(name)
    return Label(int(found["pid"]), int(found["camera"])) if found else None


def parse_own_name(name: str) -> Label | None:
    """Parses a base name of own images: the camera may be missing, come later, or be `cam3`."""
    found = _OWN.match(name)
    return Label(int(found[0]), find_camera(name[found.end() :])) if found else None


def find_camera(name: str) -> int | None:
    """Finds the first camera in a base name of any form, as `c3_0001.jpg` or `shop cam3s1.png`."""
    found = _CAMERA.search(name)
    return int(found["camera"]) if found else None
