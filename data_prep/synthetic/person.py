"""Identities: the appearance of a person, from the color of the clothes to the logo on them.

A `Look` has the coarse attributes (clothes, build) and the medium ones (hair, hat, bag), and
`Details` the fine ones (print, stripes, shoes). Twins share a look and differ in details.
"""

from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from data_prep.synthetic.streams import stream

T = TypeVar("T")
Color = tuple[int, int, int]
Top = Literal["t-shirt", "shirt", "jacket", "coat"]
Bottom = Literal["trousers", "shorts", "skirt"]
Hair = Literal["short", "bob", "long", "bun", "bald"]
Hat = Literal["none", "cap", "beanie"]
Bag = Literal["none", "backpack", "shoulder", "handbag"]
Print = Literal["disc", "ring", "square", "cross", "triangle", "bars"]
Place = Literal["chest", "heart", "back", "both"]
Stripes = Literal["none", "hoops", "band", "yoke"]

# Clothes in a street: mostly dark, gray, blue and white, sometimes another color. Few colors, so
# that many identities share them.
CLOTHES: tuple[tuple[Color, float], ...] = (
    ((38, 38, 42), 5),
    ((78, 80, 86), 3),
    ((142, 143, 146), 3),
    ((222, 220, 214), 4),
    ((42, 54, 92), 4),
    ((96, 122, 164), 3),
    ((158, 46, 50), 2),
    ((62, 92, 66), 2),
    ((186, 164, 128), 2),
    ((112, 78, 56), 2),
    ((214, 176, 62), 1),
    ((206, 134, 154), 1),
    ((112, 74, 132), 1),
    ((74, 152, 160), 1),
)
DETAIL_COLORS: tuple[Color, ...] = (
    (238, 238, 234),
    (28, 28, 30),
    (206, 40, 44),
    (240, 200, 44),
    (44, 96, 196),
    (52, 158, 84),
    (236, 126, 36),
    (224, 96, 160),
)
SHOE_COLORS: tuple[Color, ...] = (
    (30, 30, 32),
    (236, 236, 232),
    (128, 128, 130),
    (110, 76, 50),
    (190, 44, 46),
    (40, 84, 170),
    (226, 196, 60),
    (52, 140, 84),
)
HAIR_COLORS: tuple[Color, ...] = ((30, 26, 24), (58, 42, 32), (104, 72, 44), (176, 144, 92))
SKINS: tuple[Color, ...] = ((220, 178, 150), (204, 158, 126), (180, 130, 98), (112, 78, 58))

# Families within ten consecutive pids: three twins, two twins and five persons without twins.
_FAMILIES = (0, 0, 0, 1, 2, 3, 3, 4, 5, 6)


@dataclass(frozen=True)
class Look:
    """Coarse and medium attributes, shared by twins. Lengths are in meters."""

    height: float
    build: float
    skin: Color
    top: Top
    top_color: Color
    inner_color: Color
    bottom: Bottom
    bottom_color: Color
    hair: Hair
    hair_color: Color
    hat: Hat
    hat_color: Color
    bag: Bag
    bag_color: Color


@dataclass(frozen=True)
class Details:
    """Fine attributes: no two twins have the same shoes, nor the same print."""

    shoe_color: Color
    sole_color: Color
    print_shape: Print
    print_color: Color
    print_place: Place
    stripes: Stripes
    stripe_color: Color
    cuff_color: Color | None
    trouser_stripe: Color | None


@dataclass(frozen=True)
class Person:
    """One identity."""

    look: Look
    details: Details


def family_of(pid: int) -> tuple[int, int]:
    """Number of the family of `pid`, which shares a `Look`, and position of the person in it."""
    block, place = divmod(pid - 1, len(_FAMILIES))
    local = _FAMILIES[place]
    return block * len(_FAMILIES) + local, place - _FAMILIES.index(local)


def make_person(seed: int, pid: int) -> Person:
    """Makes the identity `pid` (1 or more), a pure function of the arguments."""
    family, member = family_of(pid)
    return Person(
        look=_draw_look(stream(seed, "look", family)),
        details=_draw_details(
            stream(seed, "family", family), stream(seed, "details", pid), member=member
        ),
    )


def make_stranger(rng: np.random.Generator) -> Person:
    """Draws a person who is none of the identities: a passer-by, or a distractor of the gallery."""
    return Person(look=_draw_look(rng), details=_draw_details(rng, rng, member=0))


def _pick(rng: np.random.Generator, *weighted: tuple[T, float]) -> T:
    weights = np.array([weight for _, weight in weighted], float)
    return weighted[rng.choice(len(weighted), p=weights / weights.sum())][0]


def _clothes_color(rng: np.random.Generator) -> Color:
    base = np.array(_pick(rng, *CLOTHES)) * rng.uniform(0.88, 1.1) + rng.normal(0, 4, 3)
    red, green, blue = (int(value) for value in base.clip(18, 240))
    return red, green, blue


def _draw_look(rng: np.random.Generator) -> Look:
    bottom: Bottom = _pick(rng, ("trousers", 6), ("shorts", 2), ("skirt", 2))
    hair: Hair = _pick(rng, ("short", 4), ("bob", 2), ("long", 3), ("bun", 1), ("bald", 0.5))
    return Look(
        height=float(rng.uniform(1.55, 1.9)),
        build=float(rng.uniform(0.85, 1.3)),
        skin=SKINS[rng.integers(len(SKINS))],
        top=_pick(rng, ("t-shirt", 4), ("shirt", 3), ("jacket", 3), ("coat", 1.5)),
        top_color=_clothes_color(rng),
        inner_color=_clothes_color(rng),
        bottom=bottom,
        bottom_color=_clothes_color(rng),
        hair=hair,
        hair_color=HAIR_COLORS[rng.integers(len(HAIR_COLORS))],
        hat=_pick(rng, ("none", 7), ("cap", 2), ("beanie", 1)),
        hat_color=_clothes_color(rng),
        bag=_pick(rng, ("none", 4), ("backpack", 3), ("shoulder", 2), ("handbag", 2)),
        bag_color=_clothes_color(rng),
    )


def _draw_details(family: np.random.Generator, own: np.random.Generator, *, member: int) -> Details:
    # All members of a family get the same permutations and take different positions in them, so
    # that twins cannot draw the same shoes or the same print by chance.
    shoes = family.permutation(len(SHOE_COLORS))
    colors = family.permutation(len(DETAIL_COLORS))
    shapes: tuple[Print, ...] = ("disc", "ring", "square", "cross", "triangle", "bars")

    def maybe_color(probability: float) -> Color | None:
        color = DETAIL_COLORS[own.integers(len(DETAIL_COLORS))]
        return color if own.random() < probability else None

    return Details(
        shoe_color=SHOE_COLORS[shoes[member]],
        sole_color=SHOE_COLORS[own.integers(4)],
        print_shape=shapes[family.permutation(len(shapes))[member]],
        print_color=DETAIL_COLORS[colors[member]],
        print_place=_pick(own, ("chest", 3), ("heart", 2), ("back", 2), ("both", 3)),
        stripes=_pick(own, ("none", 4), ("hoops", 2), ("band", 2), ("yoke", 2)),
        stripe_color=DETAIL_COLORS[colors[-1 - member]],
        cuff_color=maybe_color(0.35),
        trouser_stripe=maybe_color(0.4),
    )
