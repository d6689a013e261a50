"""The rivals of RSA (Table VI) that change pixels where they are: random erasing, color jitter."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmgl_jax.config import ColorJitterConfig, RandomErasingConfig
from rmgl_jax.data.geometric import Box
from rmgl_jax.data.normalization import MEAN
from rmgl_jax.data.uniform import scale, start

_ATTEMPTS = 10
_LUMA = np.float32([0.299, 0.587, 0.114])  # ITU-R BT.601, as Pillow's conversion to gray


def draw_erasing(key: jax.Array, height: int, width: int, config: RandomErasingConfig) -> Box:
    """Draws the rectangle that one image loses; 0 x 0 if none.

    Its share of the area is U(min_area, max_area), its ratio of height to width U(min_aspect,
    1/min_aspect), and it is drawn again until it fits: 10 times, which is not enough for fewer than
    one in a million of person-shaped images, and those stay whole. The place is uniform.
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


def erase(images: jax.typing.ArrayLike, box: Box) -> jax.Array:
    """Overwrites each image's box, [B] each, with ImageNet's mean color, which normalizes to 0."""
    images = jnp.asarray(images, jnp.float32)
    _, height, width, _ = images.shape
    top, left, box_height, box_width = (jnp.asarray(x)[:, None, None, None] for x in box)
    row = jnp.arange(height)[None, :, None, None]
    column = jnp.arange(width)[None, None, :, None]
    inside = (row >= top) & (row < top + box_height) & (column >= left)
    inside &= column < left + box_width
    color = np.float32(255 * np.array(MEAN)).reshape(1, 1, 1, 3)
    return jnp.where(inside, color, images)


def random_erasing(
    keys: jax.Array, images: jax.typing.ArrayLike, config: RandomErasingConfig
) -> jax.Array:
    """Random erasing (Zhong et al., AAAI 2020) of a random rectangle of every image.

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
    """Draws one image's factors of brightness, contrast and saturation, [3]; 1 changes nothing."""
    apply, *factors = jax.random.uniform(key, (4,))
    reaches = (config.brightness, config.contrast, config.saturation)
    drawn = [scale(u, 1.0 - reach, 1.0 + reach) for u, reach in zip(factors, reaches, strict=True)]
    return jnp.where(apply < config.probability, jnp.stack(drawn), 1.0)


def adjust_colors(images: jax.typing.ArrayLike, factors: jax.Array) -> jax.Array:
    """Scales brightness, then contrast, then saturation by each image's factors, [B, 3].

    Brightness scales the distance to black, contrast to the mean gray of the image, saturation to
    each pixel's own gray. Each result is kept within 0..255.
    """
    images = jnp.asarray(images, jnp.float32)
    brightness, contrast, saturation = (factors[:, i, None, None, None] for i in range(3))

    def gray(images: jax.Array) -> jax.Array:
        return (images * _LUMA.reshape(1, 1, 1, 3)).sum(axis=-1, keepdims=True)

    def blend(images: jax.Array, other: jax.typing.ArrayLike, factor: jax.Array) -> jax.Array:
        return jnp.clip(factor * images + (1.0 - factor) * other, 0.0, 255.0)

    images = blend(images, 0.0, brightness)
    images = blend(images, gray(images).mean(axis=(1, 2), keepdims=True), contrast)
    return blend(images, gray(images), saturation)


def color_jitter(
    keys: jax.Array, images: jax.typing.ArrayLike, config: ColorJitterConfig
) -> jax.Array:
    """Changes brightness, contrast and saturation of every image by independent random factors.

    Args and result as of `random_erasing`.
    """
    return adjust_colors(images, jax.vmap(partial(draw_jitter, config=config))(keys))
