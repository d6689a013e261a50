"""Textures of the parts of a body: clothes, prints, hair and skin.

A texture is a float array `[rows, facets, 3]` in 0..255, one color for each face of the tube it
is wrapped around: rows go down (or out, along a limb), facets go round from the front over the
person's left to the back and the right.
"""

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.synthetic.person import Color, Person, Print

Texture = npt.NDArray[np.float32]

TORSO_ROWS, TORSO_FACETS = 36, 36
LEG_ROWS, LEG_FACETS = 18, 12
ARM_ROWS, ARM_FACETS = 14, 8
HEAD_ROWS, HEAD_FACETS = 14, 16


def plain(rows: int, facets: int, color: Color) -> Texture:
    """Makes a texture of one color."""
    return np.full((rows, facets, 3), color, np.float32)


def fold(texture: Texture, rng: np.random.Generator, strength: float = 0.1) -> Texture:
    """Adds soft lighter and darker folds to `texture`."""
    rows, facets = texture.shape[:2]
    coarse = rng.normal(0, 1, (max(2, rows // 4), max(2, facets // 3))).astype(np.float32)
    folds = cv2.resize(coarse, (facets, rows), interpolation=cv2.INTER_CUBIC)
    return (texture * (1 + strength * folds)[..., None]).clip(0, 255)


def glyph(shape: Print, size: int) -> npt.NDArray[np.bool_]:
    """Makes a print as a mask of `size` rows. It has fewer columns: a facet is wider than a row."""
    rows, columns = size, round(0.7 * size)
    y = (np.arange(rows) - (rows - 1) / 2)[:, None] / (rows / 2)
    x = (np.arange(columns) - (columns - 1) / 2)[None, :] / (columns / 2)
    radius = np.hypot(x, y)
    masks = {
        "disc": radius < 1.0,
        "ring": (radius < 1.05) & (radius > 0.5),
        "square": radius < 2.0,
        "cross": (np.abs(x) < 0.34) | (np.abs(y) < 0.34),
        "triangle": np.abs(x) < (y + 1.1) / 2,
        "bars": np.broadcast_to(np.arange(rows)[:, None] % 4 < 2, (rows, columns)),
    }
    return masks[shape]


def stamp(
    texture: Texture, mask: npt.NDArray[np.bool_], row: int, azimuth: float, color: Color
) -> None:
    """Puts `mask` in `color` on `texture`, centered at `row` and at `azimuth` (radians)."""
    rows, facets = texture.shape[:2]
    center = round(azimuth / (2 * np.pi) * facets)
    y, x = np.nonzero(mask)
    y, x = y + row - mask.shape[0] // 2, (x + center - mask.shape[1] // 2) % facets
    inside = (y >= 0) & (y < rows)
    texture[y[inside], x[inside]] = color


def torso_texture(person: Person) -> Texture:
    """Top with its stripes, prints, open front and the straps of the bag."""
    look, details = person.look, person.details
    texture = plain(TORSO_ROWS, TORSO_FACETS, look.top_color)
    quarter = TORSO_FACETS // 4
    if details.stripes == "hoops":
        texture[5::6] = texture[6::6] = details.stripe_color
    elif details.stripes == "band":
        texture[17:21] = details.stripe_color
    elif details.stripes == "yoke":
        texture[:8] = details.stripe_color
    if look.top in ("jacket", "coat"):  # worn open over another color
        half = 3 if look.top == "jacket" else 2
        texture[:, -half:] = texture[:, :half] = look.inner_color
    elif look.top == "shirt":
        texture[:, 0] = np.array(look.top_color) * 0.7
        texture[:2] = np.array(look.top_color) * 0.85
    shape, color, place = details.print_shape, details.print_color, details.print_place
    if place in ("chest", "both"):
        stamp(texture, glyph(shape, 10), 13, 0.0, color)
    if place == "heart":
        stamp(texture, glyph(shape, 6), 10, 0.75, color)
    if place in ("back", "both"):
        stamp(texture, glyph(shape, 13), 13, np.pi, color)
    bag = np.array(look.bag_color)
    if look.bag == "backpack":
        for center in (quarter // 2 + 1, -quarter // 2 - 1):
            texture[1:18, [center, center + 1]] = bag
    elif look.bag == "shoulder":
        rows = np.arange(1, 30)
        front = np.round(-5 + 12 * rows / 30).astype(int)
        for width in (0, 1):
            texture[rows, front + width] = bag
            texture[rows, (TORSO_FACETS // 2 - front + width) % TORSO_FACETS] = bag
    return texture


def arm_texture(person: Person) -> Texture:
    """Sleeve, cuff and hand."""
    look, details = person.look, person.details
    texture = plain(ARM_ROWS, ARM_FACETS, look.top_color)
    if details.stripes == "yoke":
        texture[:2] = details.stripe_color
    end = 5 if look.top == "t-shirt" else ARM_ROWS - 2
    if details.cuff_color is not None:
        texture[end - 2 : end] = details.cuff_color
    texture[end:] = look.skin
    return texture


def leg_texture(person: Person, side: int) -> Texture:
    """Trousers or shorts with a stripe along the outer seam; `side` is 1 on the left, else -1."""
    look, details = person.look, person.details
    texture = plain(LEG_ROWS, LEG_FACETS, look.bottom_color)
    outside = side * LEG_FACETS // 4
    if details.trouser_stripe is not None:
        texture[:, outside] = details.trouser_stripe
    bare_from = {"trousers": LEG_ROWS, "shorts": 9, "skirt": 0}[look.bottom]
    texture[bare_from:] = look.skin
    if look.bottom != "trousers":
        texture[LEG_ROWS - 3 :] = details.sole_color  # socks
    return texture


def shoe_texture(person: Person) -> Texture:
    """Upper and sole. Facet 0 looks up, the opposite one down."""
    details = person.details
    texture = plain(5, 8, details.shoe_color)
    texture[:, 3:5] = details.sole_color
    return texture


def head_texture(person: Person) -> Texture:
    """Face, hair, and the hat down to the forehead."""
    look = person.look
    texture = plain(HEAD_ROWS, HEAD_FACETS, look.skin)
    if look.hair != "bald":
        texture[:4] = look.hair_color
        texture[:10, 4:-3] = look.hair_color
    texture[6, [1, 2, -2, -1]] = np.array(look.skin) * 0.72  # eyes, in the shadow of the brows
    texture[9, [-1, 0, 1]] = np.array(look.skin) * (0.84, 0.7, 0.7)  # mouth
    if look.hat != "none":
        texture[: 5 if look.hat == "cap" else 6] = look.hat_color
    return texture
