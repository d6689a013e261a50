"""The photometric augmentations of Table VI: random erasing and color jitter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rmgl_jax.config import ColorJitterConfig, RandomErasingConfig
from rmgl_jax.data.geometric import Box
from rmgl_jax.data.normalization import MEAN
from rmgl_jax.data.uniform import scale, start

_ATTEMPTS = 10
# ITU-R BT.601, as in Pillow's conversion to gray.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def draw_erasing(key: jax.Array, height: int, width: int, config: RandomErasingConfig) -> Box:
    """Draws the rectangle that is erased in one image; 0 x 0 if none.

    Its share of the image's area is U(min_area, max_area), and its ratio of height to width is
    U(min_aspect, 1/min_aspect). The first of 10 draws that fits into the image is used. If none
    fits, nothing is erased; this happens to fewer than one in a million images with the proportions
    of a person. The position is uniform.
    """
    apply, down, right, *attempts = jax.random.uniform(key, (3 + 2 * _ATTEMPTS,))
    areas, aspects = jnp.stack(attempts).reshape(2, _ATTEMPTS)
    area = scale(areas, config.min_area, config.max_area) * (height * width)
    aspect = scale(aspects, config.min_aspect, 1.0 / config.min_aspect)
    heights = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (heights <= height) & (widths <= width)
    first = jnp.argmax(fits)
    erased = fits[first] & (apply < config.probability)
    box_height = jnp.where(erased, heights[first], 0)
    box_width = jnp.where(erased, widths[first], 0)
    return Box(
        top=start(down, height - box_height),
        left=start(right, width - box_width),
        height=box_height,
        width=box_width,
    )


def erase(images: ArrayLike, box: Box) -> jax.Array:
    """Fills a box of each image with ImageNet's mean color, which `normalize` maps to 0.

    Args:
        images: [B, H, W, 3], values 0..255.
        box: Box with fields [B].

    Returns:
        float32 [B, H, W, 3], values 0..255.
    """
    images = jnp.asarray(images, jnp.float32)
    _, height, width, _ = images.shape
    top, left, box_height, box_width = (jnp.asarray(x)[:, None, None, None] for x in box)
    row = jnp.arange(height)[None, :, None, None]
    column = jnp.arange(width)[None, None, :, None]
    inside = (row >= top) & (row < top + box_height) & (column >= left)
    inside &= column < left + box_width
    color = np.float32(255 * np.array(MEAN)).reshape(1, 1, 1, 3)
    return jnp.where(inside, color, images)


def random_erasing(keys: jax.Array, images: ArrayLike, config: RandomErasingConfig) -> jax.Array:
    """Random erasing (Zhong et al., AAAI 2020): fills a random rectangle of each image.

    Args:
        keys: One key per image, [B].
        images: [B, H, W, 3], values 0..255.
        config: See `draw_erasing`.

    Returns:
        float32 [B, H, W, 3], values 0..255.
    """
    _, height, width, _ = jnp.shape(images)
    draw = partial(draw_erasing, height=height, width=width, config=config)
    return erase(images, jax.vmap(draw)(keys))


def draw_jitter(key: jax.Array, config: ColorJitterConfig) -> jax.Array:
    """Draws one image's factors of brightness, contrast and saturation, [3]; 1 if unused."""
    apply, *factors = jax.random.uniform(key, (4,))
    ranges = (config.brightness, config.contrast, config.saturation)
    drawn = [scale(u, 1.0 - width, 1.0 + width) for u, width in zip(factors, ranges, strict=True)]
    return jnp.where(apply < config.probability, jnp.stack(drawn), 1.0)


def adjust_colors(images: ArrayLike, factors: jax.Array) -> jax.Array:
    """Scales brightness, then contrast, then saturation of each image.

    Brightness scales the difference from black, contrast the difference from the image's mean gray,
    and saturation the difference from each pixel's gray. Each result is clipped to 0..255.

    Args:
        images: [B, H, W, 3], values 0..255.
        factors: Factors of brightness, contrast and saturation, [B, 3].

    Returns:
        float32 [B, H, W, 3], values 0..255.
    """
    images = jnp.asarray(images, jnp.float32)
    brightness, contrast, saturation = (factors[:, i, None, None, None] for i in range(3))

    def gray(images: jax.Array) -> jax.Array:
        return (images * _LUMA.reshape(1, 1, 1, 3)).sum(axis=-1, keepdims=True)

    def blend(images: jax.Array, other: ArrayLike, factor: jax.Array) -> jax.Array:
        return jnp.clip(factor * images + (1.0 - factor) * other, 0.0, 255.0)

    images = blend(images, 0.0, brightness)
    images = blend(images, gray(images).mean(axis=(1, 2), keepdims=True), contrast)
    return blend(images, gray(images), saturation)


def color_jitter(keys: jax.Array, images: ArrayLike, config: ColorJitterConfig) -> jax.Array:
    """Scales brightness, contrast and saturation of each image by independent random factors.

    Arguments and result are as in `random_erasing`.
    """
    return adjust_colors(images, jax.vmap(partial(draw_jitter, config=config))(keys))
