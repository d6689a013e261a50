"""The images of a preset, with Market-1501's folders and file names."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data_prep.synthetic.streams import stream

Folder = Literal["bounding_box_train", "query", "bounding_box_test"]
CAMERA_COUNT = 6


@dataclass(frozen=True)
class Preset:
    """Size of a benchmark."""

    train_ids: int
    train_images: int
    test_ids: int
    query_images: int
    """One for each camera that saw a test identity: 2 to 6 times `test_ids`."""
    gallery_images: int
    """Gallery images of test identities, without distractors and junk."""
    distractors: int
    """Images with pid 0000: kept in the gallery, never a match."""
    junk: int
    """Images with pid -1: poor boxes that the evaluation ignores."""

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            ids = getattr(self, f"{name}_ids")
            if ids < 1:
                raise ValueError(f"Preset.{name}_ids must be at least 1, got {ids}.")
        if not 2 * self.test_ids <= self.query_images <= CAMERA_COUNT * self.test_ids:
            raise ValueError(
                f"Preset.query_images must be between 2 and {CAMERA_COUNT} times test_ids "
                f"({self.test_ids}), got {self.query_images}."
            )
        if self.gallery_images < self.query_images:
            raise ValueError(
                f"Preset.gallery_images must be at least query_images ({self.query_images}), "
                f"got {self.gallery_images}."
            )
        if self.train_images < 2 * self.train_ids:
            raise ValueError(
                f"Preset.train_images must be at least twice train_ids ({self.train_ids}), "
                f"got {self.train_images}."
            )
        if min(self.distractors, self.junk) < 0:
            raise ValueError(
                "Preset.distractors and Preset.junk must be at least 0, "
                f"got {self.distractors} and {self.junk}."
            )

    @property
    def total(self) -> int:
        """Number of images in all three folders."""
        return (
            self.train_images
            + self.query_images
            + self.gallery_images
            + self.distractors
            + self.junk
        )


PRESETS: dict[str, Preset] = {
    "tiny": Preset(16, 64, 8, 20, 36, 6, 4),
    "demo": Preset(140, 1120, 50, 150, 450, 150, 130),
    "full": Preset(751, 12_936, 750, 3_368, 13_115, 2_798, 3_819),
}


@dataclass(frozen=True)
class Shot:
    """One image to be rendered."""

    folder: Folder
    pid: int
    """As in the file name: 1 or more, 0 for a distractor, -1 for junk."""
    camera: int
    """1 to 6."""
    index: int
    """Number of the image among those of `pid` by `camera`."""
    person: int
    """The identity in the picture, which the name of a junk image does not contain."""

    @property
    def path(self) -> str:
        """Folder and file name: pid, camera and sequence, frame, number of the box."""
        pid = "-1" if self.pid < 0 else f"{self.pid:04d}"
        box = "00" if self.folder == "query" else f"{1 + self.index % 7:02d}"
        frame = 25 * self.index + 1000 * (max(self.pid, 0) % 90) + 151
        sequence = 1 + self.pid % 6
        return f"{self.folder}/{pid}_c{self.camera}s{sequence}_{frame:06d}_{box}.jpg"


def shots(preset: Preset, seed: int) -> list[Shot]:
    """Lists all images of `preset`. Training has the identities 1..train_ids, testing the next."""
    return [
        *_train(preset, stream(seed, "layout", "train")),
        *_test(preset, stream(seed, "layout", "test")),
        *_others(preset, stream(seed, "layout", "others")),
    ]


def split_total(total: int, parts: int, low: int, high: int, rng: np.random.Generator) -> list[int]:
    """Draws `parts` numbers from `low` to `high` that add up to `total`."""
    if not parts * low <= total <= parts * high:
        raise ValueError(f"{parts} numbers from {low} to {high} cannot add up to {total}.")
    numbers = np.full(parts, low)
    # Unequal weights: some people are seen often, some rarely.
    weights = rng.gamma(3.0, size=parts)
    while (rest := total - int(numbers.sum())) > 0:
        room = high - numbers
        share = np.where(room > 0, weights, 0)
        numbers += np.minimum(rng.multinomial(rest, share / share.sum()), room)
    return numbers.tolist()


def _train(preset: Preset, rng: np.random.Generator) -> Iterator[Shot]:
    images = split_total(preset.train_images, preset.train_ids, 2, preset.train_images, rng)
    for pid, count in enumerate(images, start=1):
        most = min(count, CAMERA_COUNT)
        cameras = _cameras(int(rng.integers(2, most + 1)), rng)
        for camera, shown in zip(
            cameras, split_total(count, len(cameras), 1, count, rng), strict=True
        ):
            for index in range(shown):
                yield Shot("bounding_box_train", pid, camera, index, pid)


def _test(preset: Preset, rng: np.random.Generator) -> Iterator[Shot]:
    # As in Market-1501 an identity has one query for each camera that saw it. It has a gallery
    # image there too, and two cameras at least, so that every query has a true match elsewhere.
    seen_by = split_total(preset.query_images, preset.test_ids, 2, CAMERA_COUNT, rng)
    extra = split_total(
        preset.gallery_images - preset.query_images,
        preset.test_ids,
        0,
        preset.gallery_images,
        rng,
    )
    for pid, (views, more) in enumerate(
        zip(seen_by, extra, strict=True), start=preset.train_ids + 1
    ):
        shown = split_total(views + more, views, 1, views + more, rng)
        for camera, count in zip(_cameras(views, rng), shown, strict=True):
            yield Shot("query", pid, camera, 0, pid)
            for index in range(1, count + 1):
                yield Shot("bounding_box_test", pid, camera, index, pid)


def _others(preset: Preset, rng: np.random.Generator) -> Iterator[Shot]:
    for pid, count in ((0, preset.distractors), (-1, preset.junk)):
        for index in range(count):
            camera = int(rng.integers(1, CAMERA_COUNT + 1))
            person = 0 if pid == 0 else preset.train_ids + int(rng.integers(1, preset.test_ids + 1))
            yield Shot("bounding_box_test", pid, camera, index, person)


def _cameras(count: int, rng: np.random.Generator) -> list[int]:
    return sorted((rng.permutation(CAMERA_COUNT)[:count] + 1).tolist())
