"""Tiny directories of images with the layouts and names of real datasets."""

import io
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

import data_prep

MARKET = {
    # Each name with its identity and camera; None is left out.
    "bounding_box_train": {
        "0002_c1s1_000451_03.jpg": (2, 0),
        "0002_c6s4_012345_00.jpg.jpg": (2, 5),
        "0007_c3s3_077419_03.JPG": (7, 2),
        "1500_c2s1_000001_01.jpeg": (1500, 1),
        "Thumbs.db": None,
        "._0002_c1s1_000451_03.jpg": None,
        ".DS_Store": None,
    },
    "query": {
        "0001_c1s1_001051_00.jpg": (1, 0),
        "0001_c4s6_016996_00.jpg": (1, 3),
        "Thumbs.db": None,
    },
    "bounding_box_test": {
        "-1_c1s1_000401_03.jpg": None,
        "-1_c5s2_000801_00.jpg": None,
        "0000_c1s1_000151_01.jpg": (0, 0),
        "0000_c6s3_077467_04.jpg": (0, 5),
        "0001_c2s1_000301_00.jpg": (1, 1),
        "0001_c5s1_001426_01.jpg.jpg": (1, 4),
        "Thumbs.db": None,
    },
}
SPLIT_OF = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}


def image_bytes(seed: int, image_format: str = "JPEG") -> bytes:
    """A small image of noise that depends on the seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 32, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, image_format)
    return encoded.getvalue()


def write_images(directory: Path, names: Iterable[str]) -> None:
    """Writes an image under every name, and noise under names that are not of images."""
    for seed, name in enumerate(names):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = path.suffix.lower()
        if suffix in (".jpg", ".jpeg", ".png") and not path.name.startswith("."):
            path.write_bytes(image_bytes(seed, "PNG" if suffix == ".png" else "JPEG"))
        else:
            path.write_bytes(b"\xd0\xcf\x11\xe0 not an image")


def write_market(root: Path) -> Path:
    """Writes `MARKET` below `root`."""
    for folder, names in MARKET.items():
        write_images(root / folder, names)
    return root


def market_labels() -> dict[str, dict[str, tuple[int, int]]]:
    """The labels of `MARKET`, by split and name."""
    return {
        SPLIT_OF[folder]: {name: label for name, label in names.items() if label is not None}
        for folder, names in MARKET.items()
    }


def read_labels(builder) -> dict[str, dict[str, tuple[int, int]]]:
    """Identity and camera of every record, by split and name."""
    return {
        split: {
            record["name"]: (record["pid"], record["camid"])
            for record in data_prep.read_records(builder, split)
        }
        for split in builder.info.splits
    }


class SecondReading:
    """An image file that does something the second time it is read: when it is written."""

    def __init__(self, path: Path, action: Callable[[], None]) -> None:
        self.path, self.action, self.was_read = path, action, False

    def read_bytes(self) -> bytes:
        if self.was_read:
            self.action()
        self.was_read = True
        return self.path.read_bytes()


def prepare_partial(name: str, source: Path | None, data_dir: Path):
    """Prepares a tree that has far fewer images than the published dataset."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* is partial", UserWarning)
        return data_prep.prepare_dataset(name, source, data_dir, allow_partial=True)
