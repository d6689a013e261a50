"""Crop, resize and paste as one separable resampling.

Cropping a box, resizing it and pasting it elsewhere on a plain canvas scales and shifts each axis
independently. So the three operations are two small matrix products per image, one for rows and one
for columns, which are fast on every backend, instead of three passes or a gather.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike


class Box(NamedTuple):
    """A rectangle in integer pixels; scalars for one image, [B] for a batch."""

    top: ArrayLike
    left: ArrayLike
    height: ArrayLike
    width: ArrayLike


class Placement(NamedTuple):
    """Source box and target box of `crop_resize_paste`."""

    source: Box
    """Box that is cropped; inside the image."""
    target: Box
    """Box that the crop is resized to and pasted at; parts outside the canvas are cut off."""


def identity(height: int, width: int) -> Placement:
    """The placement that leaves an image of this size unchanged."""
    box = Box(*(jnp.asarray(x, jnp.int32) for x in (0, 0, height, width)))
    return Placement(box, box)


def crop_resize_paste(images: ArrayLike, placement: Placement, fill: float) -> jax.Array:
    """Crops each image's source box, resizes it, and pastes it on a canvas of the image's size.

    The resize is bilinear with antialiasing: when it shrinks, the filter widens by the same factor,
    as in Pillow's `resize(..., BILINEAR)`, but without rounding to integers. The placement
    `identity` returns the image exactly.

    Args:
        images: [B, H, W, C], values 0..255.
        placement: Boxes with fields [B].
        fill: Value of the canvas, 0..255.

    Returns:
        float32 [B, H, W, C], values 0..255.
    """
    images = jnp.asarray(images, jnp.float32)
    _, height, width, _ = images.shape
    source, target = placement
    rows = _interpolation(source.top, source.height, target.top, target.height, height)
    columns = _interpolation(source.left, source.width, target.left, target.width, width)
    # The matrices are zero outside the target, so differences from the fill need no mask.
    # The default precision of accelerators would round pixel values.
    highest = lax.Precision.HIGHEST
    relative = images - fill
    relative = jnp.einsum("bxw,bhwc->bhxc", columns, relative, precision=highest)
    relative = jnp.einsum("byh,bhxc->byxc", rows, relative, precision=highest)
    return relative + fill


def _interpolation(
    source_start: ArrayLike,
    source_size: ArrayLike,
    target_start: ArrayLike,
    target_size: ArrayLike,
    length: int,
) -> jax.Array:
    """Interpolation weights [B, length, length] of target pixels (rows) from source pixels.

    A row sums to 1 inside the target and to 0 outside. All arguments except `length` are [B].
    """
    source_start, source_size, target_start, target_size = (
        jnp.asarray(x, jnp.float32)[:, None, None]
        for x in (source_start, source_size, target_start, target_size)
    )
    # Pixel i covers [i, i + 1); positions are those of pixel centers.
    source = jnp.arange(length, dtype=jnp.float32)[None, None, :] + 0.5
    target = jnp.arange(length, dtype=jnp.float32)[None, :, None] + 0.5
    scale = source_size / target_size
    center = source_start + (target - target_start) * scale
    weight = jnp.maximum(0.0, 1.0 - jnp.abs(source - center) / jnp.maximum(scale, 1.0))
    inside = (
        (source_start < source)
        & (source < source_start + source_size)
        & (target_start < target)
        & (target < target_start + target_size)
    )
    weight = jnp.where(inside, weight, 0.0)
    total = weight.sum(axis=-1, keepdims=True)
    return weight / jnp.where(total > 0.0, total, 1.0)
