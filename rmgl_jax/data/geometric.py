"""Crop, resize and shift as one resampling.

Cutting a box out of an image, resizing it and pasting it elsewhere on a plain canvas scales and
shifts each axis on its own. So the whole is two small matrix products per image, rows and columns,
which every backend does fast, instead of three passes or a gather.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Box(NamedTuple):
    """A rectangle in whole pixels; scalars of one image, or [B] of a batch."""

    top: jax.typing.ArrayLike
    left: jax.typing.ArrayLike
    height: jax.typing.ArrayLike
    width: jax.typing.ArrayLike


class Placement(NamedTuple):
    """Which part of the image is shown, and where."""

    source: Box
    """Part of the image that is cut out; inside the image."""
    target: Box
    """Where it is put, resized to this box; what lies outside the canvas is cut off."""


def whole(height: int, width: int) -> Placement:
    """The placement that changes nothing."""
    box = Box(*(jnp.asarray(x, jnp.int32) for x in (0, 0, height, width)))
    return Placement(box, box)


def place(images: jax.typing.ArrayLike, placement: Placement, fill: float) -> jax.Array:
    """Cuts each image's source box out, resizes it, and pastes it on a canvas of the same size.

    The resize is bilinear, and where it shrinks the filter widens by the factor, so that nothing
    aliases: what Pillow's `resize(..., BILINEAR)` does, without its rounding to whole values.
    An image placed as `whole` comes back exactly.

    Args:
        images: [B, H, W, C], values 0..255.
        placement: Boxes of [B] each.
        fill: Value of the canvas.

    Returns:
        float32 [B, H, W, C], values 0..255.
    """
    images = jnp.asarray(images, jnp.float32)
    _, height, width, _ = images.shape
    source, target = placement
    rows = _interpolation(source.top, source.height, target.top, target.height, height)
    columns = _interpolation(source.left, source.width, target.left, target.width, width)
    # The matrices are zero outside the target, so relative to the fill the canvas comes for free.
    # The highest precision because the accelerators' default would round pixel values.
    product = {"precision": lax.Precision.HIGHEST}
    relative = images - fill
    relative = jnp.einsum("bxw,bhwc->bhxc", columns, relative, **product)
    relative = jnp.einsum("byh,bhxc->byxc", rows, relative, **product)
    return relative + fill


def _interpolation(
    source_start: jax.typing.ArrayLike,
    source_size: jax.typing.ArrayLike,
    target_start: jax.typing.ArrayLike,
    target_size: jax.typing.ArrayLike,
    length: int,
) -> jax.Array:
    """Weights [B, length, length] of source pixels (last axis) in target pixels.

    A row sums to 1 inside the target and to 0 outside. All arguments but `length` are [B].
    """
    source_start, source_size, target_start, target_size = (
        jnp.asarray(x, jnp.float32)[:, None, None]
        for x in (source_start, source_size, target_start, target_size)
    )
    # Pixels are squares: positions are those of their middles.
    source = jnp.arange(length, dtype=jnp.float32)[None, None, :] + 0.5
    target = jnp.arange(length, dtype=jnp.float32)[None, :, None] + 0.5
    scale = source_size / target_size
    middle = source_start + (target - target_start) * scale
    weight = jnp.maximum(0.0, 1.0 - jnp.abs(source - middle) / jnp.maximum(scale, 1.0))
    inside = (
        (source_start < source)
        & (source < source_start + source_size)
        & (target_start < target)
        & (target < target_start + target_size)
    )
    weight = jnp.where(inside, weight, 0.0)
    total = weight.sum(axis=-1, keepdims=True)
    return weight / jnp.where(total > 0.0, total, 1.0)
