"""Scenes: the background of each camera, and obstacles in front of people.

The scene of a camera is fixed; an image shows the part of it behind the person. So the background
depends on the camera, never on the identity.
"""

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.synthetic.camera import Box, Camera, Image, to_pixels
from data_prep.synthetic.streams import stream

PIXELS_PER_METER = 72
LENGTH, ABOVE, BELOW = 1800, 260, 260
"""Width of a scene and its rows above and below the line where ground and background meet."""


def noise(rng: np.random.Generator, rows: int, columns: int, grain: int) -> npt.NDArray[np.float32]:
    """Smooth noise [rows, columns] of unit variance at most, in spots of about `grain` pixels."""
    coarse = rng.normal(0, 1, (rows // grain + 2, columns // grain + 2)).astype(np.float32)
    resized = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.float32)


def _mottle(image: Image, rng: np.random.Generator, strength: float) -> None:
    rows, columns = image.shape[:2]
    spots = np.zeros((rows, columns), np.float32)
    for grain in (2, 7, 40):
        spots += noise(rng, rows, columns, grain)
    image[:] = (image + (spots * strength)[..., None]).clip(0, 255).astype(np.uint8)


def _slabs(image: Image, top: int, color: tuple, step: float) -> None:
    """Joints of paving slabs in perspective, below row `top`."""
    rows, columns = image.shape[:2]
    for row in top + np.cumsum(np.linspace(4, step, 14)):
        cv2.line(image, (0, int(row)), (columns, int(row)), color, 1)
    for x in range(-columns, 2 * columns, 46):
        foot = int(columns / 2 + (x - columns / 2) * 1.6)
        cv2.line(image, (x, top), (foot, rows), color, 1, cv2.LINE_AA)


def _square(image: Image, rng: np.random.Generator) -> None:
    image[:ABOVE], image[ABOVE:] = (186, 180, 168), (150, 146, 140)
    for x in range(20, LENGTH, 150):
        cv2.rectangle(image, (x, 30), (x + 80, 170), (92, 104, 116), -1)
        cv2.rectangle(image, (x, 30), (x + 80, 170), (226, 222, 212), 4)
        cv2.line(image, (x + 40, 30), (x + 40, 170), (226, 222, 212), 3)
    cv2.rectangle(image, (0, ABOVE - 24), (LENGTH, ABOVE), (150, 138, 122), -1)
    _slabs(image, ABOVE, (138, 130, 122), 30)


def _park(image: Image, rng: np.random.Generator) -> None:
    image[:ABOVE], image[ABOVE:] = (150, 178, 190), (104, 132, 74)
    _foliage(image, rng, (0, 0, LENGTH, ABOVE - 60), 900, (52, 86, 44), 26)
    for x in rng.integers(0, LENGTH, 12).tolist():
        cv2.rectangle(image, (x, 40), (x + int(rng.integers(12, 26)), ABOVE + 12), (84, 66, 50), -1)
    _foliage(image, rng, (0, ABOVE - 70, LENGTH, ABOVE), 700, (66, 104, 50), 16)
    path = np.array([[0, ABOVE + 60], [LENGTH, ABOVE + 30], [LENGTH, 460], [0, 520]], np.int32)
    cv2.fillPoly(image, [path], (176, 166, 142))


def _shops(image: Image, rng: np.random.Generator) -> None:
    image[:ABOVE], image[ABOVE:] = (122, 116, 118), (120, 120, 124)
    for x in range(0, LENGTH, 220):
        sign = rng.integers(40, 220, 3).tolist()
        cv2.rectangle(image, (x + 6, 10), (x + 206, 52), sign, -1)
        cv2.rectangle(image, (x + 10, 64), (x + 202, ABOVE - 26), (58, 70, 82), -1)
        for _ in range(14):  # goods behind the glass
            corner = rng.integers((x + 14, 90), (x + 180, ABOVE - 60))
            size = rng.integers(8, 30, 2)
            tone = rng.integers(60, 210, 3).tolist()
            cv2.rectangle(image, corner.tolist(), (corner + size).tolist(), tone, -1)
        cv2.line(image, (x + 30, ABOVE - 30), (x + 110, 66), (120, 132, 142), 8)
    _slabs(image, ABOVE, (98, 98, 102), 24)


def _road(image: Image, rng: np.random.Generator) -> None:
    image[:ABOVE], image[ABOVE:] = (168, 170, 166), (92, 92, 96)
    for x in range(30, LENGTH, 360):
        tone = (rng.integers(40, 200) + rng.integers(-30, 30, 3)).tolist()
        cv2.ellipse(image, (x + 130, ABOVE - 70), (90, 52), 0, 180, 360, (52, 60, 70), -1)
        cv2.rectangle(image, (x, ABOVE - 78), (x + 280, ABOVE - 18), tone, -1)
        for wheel in (x + 60, x + 220):
            cv2.circle(image, (wheel, ABOVE - 18), 26, (32, 32, 34), -1)
            cv2.circle(image, (wheel, ABOVE - 18), 12, (150, 150, 152), -1)
    cv2.rectangle(image, (0, ABOVE), (LENGTH, ABOVE + 16), (176, 174, 168), -1)
    for x in range(0, LENGTH, 130):
        stripe = np.array([[x, 350], [x + 70, 350], [x + 50, 372], [x - 25, 372]], np.int32)
        cv2.fillPoly(image, [stripe], (214, 214, 208))


def _hall(image: Image, rng: np.random.Generator) -> None:
    image[:ABOVE], image[ABOVE:] = (192, 190, 194), (160, 158, 164)
    for x in range(0, LENGTH, 260):
        cv2.rectangle(image, (x, 0), (x + 44, ABOVE + 20), (146, 140, 154), -1)
        cv2.rectangle(image, (x + 90, 70), (x + 190, ABOVE), (128, 104, 88), -1)
        cv2.circle(image, (x + 178, 175), 4, (220, 210, 160), -1)
        cv2.rectangle(image, (x + 60, 20), (x + 80, 120), (60, 120, 170), -1)
    sheen = np.linspace(50, 0, BELOW, dtype=np.float32)[:, None, None]
    image[ABOVE:] = (image[ABOVE:] + sheen).clip(0, 255).astype(np.uint8)
    _slabs(image, ABOVE, (150, 146, 158), 40)


def _yard(image: Image, rng: np.random.Generator) -> None:
    image[:ABOVE], image[ABOVE:] = (138, 98, 84), (122, 116, 108)
    for row in range(0, ABOVE, 10):
        cv2.line(image, (0, row), (LENGTH, row), (178, 160, 146), 1)
        for x in range(row % 20, LENGTH, 24):
            cv2.line(image, (x, row), (x, row + 10), (178, 160, 146), 1)
    for x in range(100, LENGTH, 420):
        cv2.rectangle(image, (x, 40), (x + 120, ABOVE), (70, 84, 74), -1)
    for x in range(260, LENGTH, 90):
        cv2.ellipse(image, (x, ABOVE + 8), (22, 44), 0, 180, 360, (188, 190, 194), 4, cv2.LINE_AA)


def _foliage(
    image: Image,
    rng: np.random.Generator,
    area: tuple[int, int, int, int],
    leaves: int,
    color: tuple,
    size: int,
) -> None:
    """Clumps of leaves in `area` (left, top, right, bottom), the lower ones darker."""
    left, top, right, bottom = area
    places = rng.uniform((left, top), (right, bottom), (leaves, 2)).astype(int)
    tones = np.array(color) * rng.uniform(0.6, 1.5, (leaves, 1))
    axes = rng.integers(max(2, size // 3), size + 1, (leaves, 2))
    for place, tone, axis in zip(
        places.tolist(), tones.clip(0, 255).tolist(), axes.tolist(), strict=True
    ):
        cv2.ellipse(image, place, axis, 0, 0, 360, tone, -1)


_PAINTERS = (_square, _park, _shops, _road, _hall, _yard)


@lru_cache(maxsize=12)
def scene(seed: int, number: int) -> Image:
    """The scene of camera `number`, uint8 [rows, columns, 3]."""
    rng = stream(seed, "scene", number)
    image = np.zeros((ABOVE + BELOW, LENGTH, 3), np.uint8)
    _PAINTERS[number - 1](image, rng)
    _mottle(image, rng, 5.0)
    image.flags.writeable = False
    return image


def backdrop(
    seed: int, camera: Camera, box: Box, size: tuple[int, int], rng: np.random.Generator
) -> Image:
    """Cuts the part of the scene in `box`, as an image of `size` (rows, columns).

    The person stands nearer or farther, so that the scale of the scene varies.
    """
    place = scene(seed, camera.number)
    scale = PIXELS_PER_METER * rng.uniform(0.8, 1.3)
    # The steeper the camera looks down, the more of the picture is ground.
    feet = ABOVE + scale * (0.15 + 2.2 * np.sin(camera.pitch)) * rng.uniform(0.4, 1.0)
    width, height = box.width * scale, box.height * scale
    left = rng.uniform(0, LENGTH - width)
    top = feet - (box.bottom + box.height) * scale
    rows, columns = size
    transform = np.array([[width / columns, 0, left], [0, height / rows, top]], np.float32)
    cut = cv2.warpAffine(
        place,
        transform,
        (columns, rows),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    return np.asarray(cut, np.uint8)


def cast_shadow(canvas: Image, camera: Camera, box: Box, tight: Box) -> None:
    """Darkens the ground at the feet of the person in `tight`."""
    feet = np.array([tight.left + tight.width / 2 - 0.12 * camera.light[0], tight.bottom + 0.06])
    center = to_pixels(feet, box, canvas)
    rows, columns = canvas.shape[:2]
    axes = (0.34 / box.width * columns, 0.13 / box.height * rows)
    shadow = np.zeros((rows, columns), np.float32)
    cv2.ellipse(shadow, (center.tolist(), (2 * axes[0], 2 * axes[1]), 0), 0.4, -1)
    blurred = np.asarray(cv2.blur(shadow, (15, 9)))
    canvas[:] = (canvas * (1 - blurred[..., None])).astype(np.uint8)


def obstruct(canvas: Image, kind: str, rng: np.random.Generator) -> None:
    """Draws a pole, a bush or a railing in front of everything on `canvas`."""
    rows, columns = canvas.shape[:2]
    if kind == "pole":
        width = int(columns * rng.uniform(0.08, 0.2))
        left = int(columns * rng.uniform(0.05, 0.8))
        tone = np.array([130, 132, 134]) * rng.uniform(0.5, 1.4)
        round_ = 1 - 0.5 * np.abs(np.linspace(-1, 1, width)) ** 2
        area = canvas[:, left : left + width]
        area[:] = (tone * round_[: area.shape[1], None]).clip(0, 255).astype(np.uint8)
    elif kind == "bush":
        left, width = columns * rng.uniform(-0.3, 0.6), columns * rng.uniform(0.4, 0.9)
        top = rows * rng.uniform(0.6, 0.85)
        bush = (int(left), int(top), int(left + width), rows + 10)
        _foliage(canvas, rng, bush, 160, (58, 92, 46), 22)
    else:
        tone = (np.array([150, 150, 150]) * rng.uniform(0.4, 1.4)).clip(0, 255).tolist()
        top, bars = rows * rng.uniform(0.5, 0.7), int(rng.integers(5, 8))
        for x in np.linspace(0, columns, bars).astype(int).tolist():
            cv2.line(canvas, (x, int(top)), (x, rows), tone, 6)
        cv2.line(canvas, (0, int(top)), (columns, int(top)), tone, 12)
