"""Bodies: a person in a pose as a mesh of colored quadrilaterals.

Every part is a tube: rings of elliptic cross-section along a line of centers, wrapped in a
texture of `wardrobe`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from data_prep.synthetic import wardrobe
from data_prep.synthetic.person import Color, Person
from data_prep.synthetic.pose import Points, Pose, Skeleton, skeleton
from data_prep.synthetic.wardrobe import Texture

UP = np.array([0.0, 1.0, 0.0])


class Mesh(NamedTuple):
    """Faces of a body."""

    quads: npt.NDArray[np.float32]
    """Corners [N, 4, 3] in meters, counterclockwise seen from outside."""
    colors: npt.NDArray[np.float32]
    """[N, 3], 0..255."""


def person_mesh(person: Person, pose: Pose, rng: np.random.Generator) -> Mesh:
    """Makes the mesh of `person` in `pose`; `rng` draws the folds of the clothes."""
    bones = skeleton(pose, person.look.height, person.look.build)
    parts = [
        *_legs(person, bones, rng),
        *_torso(person, pose, bones, rng),
        *_arms(person, bones, rng),
        *_head(person, bones),
        *_bag(person, bones, rng),
    ]
    return Mesh(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def tube(
    centers: Points,
    side: Points,
    ahead: Points,
    half_width: npt.ArrayLike,
    half_depth: npt.ArrayLike,
    texture: Texture,
    boxiness: float = 1.0,
) -> Mesh:
    """Makes a tube through `centers` [R, 3] wrapped in `texture` [R - 1, facets, 3].

    Args:
        centers: of the rings, from the top down.
        side: unit vector(s) of the width, towards the person's left.
        ahead: unit vector(s) of the depth, towards the front. The line runs along
            `side` x `ahead`, or the faces would be inside out.
        half_width: of each ring, in meters.
        half_depth: of each ring, in meters.
        texture: colors of the faces.
        boxiness: 1 gives ellipses, smaller values rounder and rounder boxes.
    """
    rings, facets = len(centers), texture.shape[1]
    # Facet 0 is centered on the front.
    angle = 2 * np.pi * (np.arange(facets) - 0.5) / facets
    sin, cos = np.sin(angle), np.cos(angle)
    across = (np.sign(sin) * np.abs(sin) ** boxiness)[:, None]
    along = (np.sign(cos) * np.abs(cos) ** boxiness)[:, None]
    width = np.broadcast_to(half_width, rings)[:, None, None]
    depth = np.broadcast_to(half_depth, rings)[:, None, None]
    side, ahead = (np.broadcast_to(axis, (rings, 3))[:, None, :] for axis in (side, ahead))
    points = centers[:, None, :] + width * across * side + depth * along * ahead
    following = np.roll(points, -1, axis=1)
    quads = np.stack([points[:-1], points[1:], following[1:], following[:-1]], axis=2)
    return Mesh(quads.reshape(-1, 4, 3).astype(np.float32), texture.reshape(-1, 3))


def _along(points: Points, rings: int) -> Points:
    """Interpolates `rings` points at even steps along the line through `points`."""
    at = np.linspace(0, len(points) - 1, rings)
    return np.stack([np.interp(at, range(len(points)), axis) for axis in points.T], axis=1)


def _limb(line: Points, left: Points, girth: Points, texture: Texture) -> Mesh:
    """Makes a round tube whose front turns with the line: forearms may point forwards."""
    ahead = np.cross(np.gradient(line, axis=0), left)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    return tube(line, left, ahead, girth, girth, texture)


def _torso(person: Person, pose: Pose, bones: Skeleton, rng: np.random.Generator) -> list[Mesh]:
    look = person.look
    height, width = look.height, look.height * look.build
    hem = {"t-shirt": 1.08, "shirt": 1.12, "jacket": 1.16, "coat": 1.75}[look.top]
    # Position on the spine: 0 at the neck, 1 at the hips, beyond that straight down.
    at = np.linspace(-0.03, hem, wardrobe.TORSO_ROWS + 1)
    spine = bones.hip - bones.neck
    centers = bones.neck + np.minimum(at, 1)[:, None] * spine
    centers = centers - np.maximum(at - 1, 0)[:, None] * 0.31 * height * UP
    loose = {"t-shirt": 1.0, "shirt": 1.02, "jacket": 1.12, "coat": 1.1}[look.top]
    stations = [-0.03, 0.02, 0.1, 0.35, 0.65, 0.95, 1.1, 1.75]
    half_width = np.interp(at, stations, [0.03, 0.07, 0.1, 0.096, 0.08, 0.09, 0.092, 0.11])
    half_depth = np.interp(at, stations, [0.03, 0.045, 0.055, 0.066, 0.06, 0.068, 0.072, 0.08])
    half_depth = half_depth + np.maximum(at - 1, 0) * 0.15 * np.sin(pose.stride)
    texture = wardrobe.fold(wardrobe.torso_texture(person), rng)
    parts = [
        tube(
            centers,
            bones.left,
            bones.forward,
            loose * width * half_width,
            loose * width * half_depth,
            texture,
            boxiness=0.9,
        )
    ]
    if look.bottom == "skirt":
        rows = 12
        down = np.linspace(0, 1, rows + 1)
        skirt = wardrobe.fold(wardrobe.plain(rows, 18, look.bottom_color), rng)
        parts.append(
            tube(
                bones.hip + (0.02 - 0.27 * down)[:, None] * height * UP,
                bones.left,
                bones.forward,
                width * (0.07 + 0.057 * down),
                width * 0.05 + height * down * (0.046 + 0.2 * np.sin(pose.stride)),
                skirt,
            )
        )
    return parts


def _legs(person: Person, bones: Skeleton, rng: np.random.Generator) -> list[Mesh]:
    look = person.look
    size = look.height * np.sqrt(look.build)
    loose = 0.006 if look.bottom == "trousers" else 0.0
    at = np.linspace(0, 2, wardrobe.LEG_ROWS + 1)
    girth = size * (np.interp(at, [0, 0.6, 1, 1.4, 2], [0.05, 0.044, 0.033, 0.033, 0.02]) + loose)
    parts = []
    for side, leg in zip((1, -1), bones.legs, strict=True):
        texture = wardrobe.fold(wardrobe.leg_texture(person, side), rng)
        parts.append(_limb(_along(leg, len(at)), bones.left, girth, texture))
        # The foot points along the ground, and tips down when the shank lags behind.
        shank = leg[2] - leg[1]
        tip = np.clip(-(shank @ bones.forward) / np.linalg.norm(shank), 0, 0.9)
        toes = bones.forward * np.sqrt(1 - tip**2) - tip * UP
        upwards = np.cross(toes, bones.left)
        heel = leg[2] - 0.02 * look.height * upwards - 0.03 * look.height * toes
        along = np.array([0.0, 0.02, 0.06, 0.09, 0.115, 0.125])[:, None] * look.height * toes
        sole = look.height * np.array([0.01, 0.024, 0.026, 0.026, 0.022, 0.006])
        rise = look.height * np.array([0.014, 0.03, 0.026, 0.018, 0.014, 0.006])
        parts.append(
            tube(heel + along, bones.left, upwards, sole, rise, wardrobe.shoe_texture(person))
        )
    return parts


def _arms(person: Person, bones: Skeleton, rng: np.random.Generator) -> list[Mesh]:
    look = person.look
    size = look.height * np.sqrt(look.build)
    loose = {"t-shirt": 0.0, "shirt": 0.002, "jacket": 0.006, "coat": 0.007}[look.top]
    at = np.linspace(0, 2, wardrobe.ARM_ROWS + 1)
    girth = size * np.interp(at, [0, 0.15, 1, 1.7, 2], [0.018, 0.03, 0.025, 0.018, 0.016])
    girth = girth + size * loose * (at < 1.75)
    parts = []
    for arm in bones.arms:
        reach = arm[2] - arm[1]
        hand = arm[2] + 0.35 * reach
        texture = wardrobe.fold(wardrobe.arm_texture(person), rng)
        line = np.concatenate([_along(arm, len(at) - 2), _along(np.stack([arm[2], hand]), 3)[1:]])
        parts.append(_limb(line, bones.left, girth, texture))
    return parts


def _head(person: Person, bones: Skeleton) -> list[Mesh]:
    look = person.look
    height = look.height
    ahead = bones.head_forward
    left = np.cross(UP, ahead)
    base = bones.neck + 0.012 * height * bones.forward
    center = base + 0.098 * height * UP + 0.008 * height * ahead
    parts = [
        tube(
            np.stack([base + 0.05 * height * UP, base - 0.02 * height * UP]),
            left,
            ahead,
            0.028 * height,
            0.03 * height,
            wardrobe.plain(1, 10, look.skin),
        ),
        _ball(center, left, ahead, height * np.array([0.044, 0.066, 0.052]), person),
    ]

    def shell(top: float, bottom: float, back: float, half_width: float, color: Color) -> Mesh:
        """Makes hair that hangs behind the head, from `top` to `bottom` above the head's center."""
        rows = 8
        down = np.linspace(0, 1, rows + 1)
        drop = center + (top + (bottom - top) * down)[:, None] * height * UP
        full = height * np.interp(down, [0, 0.2, 0.85, 1], [0.2, 1, 1, 0.5])
        return tube(
            drop - back * height * ahead,
            left,
            ahead,
            half_width * full,
            0.84 * full * min(half_width, 0.045),
            wardrobe.plain(rows, 12, color),
        )

    if look.hair == "bob":
        parts.append(shell(0.066, -0.07, 0.022, 0.052, look.hair_color))
    elif look.hair == "long":
        parts.append(shell(0.066, -0.19, 0.03, 0.053, look.hair_color))
    elif look.hair == "bun":
        parts.append(shell(0.085, 0.03, 0.05, 0.026, look.hair_color))
    if look.hat == "cap":
        brim = np.stack([center + ahead * height * step for step in (0.03, 0.09, 0.095)])
        parts.append(
            tube(
                brim + 0.028 * height * UP,
                left,
                UP,
                height * np.array([0.044, 0.032, 0.02]),
                0.007 * height,
                wardrobe.plain(2, 8, look.hat_color),
            )
        )
    elif look.hat == "beanie":
        parts.append(shell(0.085, 0.015, -0.002, 0.05, look.hat_color))
    return parts


def _ball(center: Points, left: Points, ahead: Points, radii: Points, person: Person) -> Mesh:
    """Makes the head, an ellipsoid with half axes `radii` (left, up, ahead)."""
    polar = np.linspace(0.02, np.pi - 0.02, wardrobe.HEAD_ROWS + 1)
    # A chin is narrower than a forehead.
    narrow = np.sin(polar) * (1 - 0.12 * (1 - np.cos(polar)) / 2)
    return tube(
        center + (radii[1] * np.cos(polar))[:, None] * UP,
        left,
        ahead,
        radii[0] * narrow,
        radii[2] * narrow,
        wardrobe.head_texture(person),
    )


def _bag(person: Person, bones: Skeleton, rng: np.random.Generator) -> list[Mesh]:
    look = person.look
    height = look.height
    if look.bag == "none":
        return []
    if look.bag == "backpack":
        top = bones.neck + 0.08 * (bones.hip - bones.neck)
        bottom = bones.neck + 0.82 * (bones.hip - bones.neck)
        line = np.stack([top, bottom]) - (0.06 * look.build + 0.05) * height * bones.forward
        half = np.array([0.085, 0.05]) * height
    elif look.bag == "shoulder":
        middle = bones.hip + (0.092 * look.build + 0.035) * height * bones.left
        line = np.stack([middle + 0.03 * height * UP, middle - 0.09 * height * UP])
        half = np.array([0.03, 0.075]) * height
    else:
        wrist = bones.arms[1][2]
        line = np.stack([wrist - 0.05 * height * UP, wrist - 0.19 * height * UP])
        half = np.array([0.03, 0.085]) * height
    rows = 10
    down = np.linspace(0, 1, rows + 1)
    full = np.interp(down, [0, 0.08, 0.9, 1], [0.3, 0.92, 1, 0.5])
    texture = wardrobe.fold(wardrobe.plain(rows, 16, look.bag_color), rng)
    texture[4] *= 0.75  # the seam of the pocket
    bag = tube(
        _along(line, rows + 1),
        bones.left,
        bones.forward,
        half[0] * full,
        half[1] * full,
        texture,
        boxiness=0.5,
    )
    return [bag]
