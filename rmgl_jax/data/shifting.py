"""Random shifting augmentation (RSA, III-D) and the other geometric augmentations of Table VI.

Each augmentation has a `draw_...` function, which draws the placement of one image, and a function
that draws and applies one for every image of a batch. Boxes are rounded to integer pixels.

All random numbers of an image come from one call of the generator, because each call is compiled
separately and generators dominate the compile time of these functions.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rmgl_jax.config import CropResizeShiftConfig, RandomCropConfig, RandomShiftingConfig
from rmgl_jax.data.geometric import Box, Placement, crop_resize_paste, identity
from rmgl_jax.data.uniform import scale, start


def draw_shifting(
    key: jax.Array, height: int, width: int, config: RandomShiftingConfig
) -> Placement:
    """Draws one image's crop, patch size and location.

    With probability p the image is shifted; otherwise the placement is `identity`. A shifted image
    is cropped with probability p_c to a strip of r_c ~ U(r_c^(min), 1) of its height at a uniform
    position (else r_c = 1). The patch is r_h ~ U(r_h^(min), 1/r_c) times as high as the crop and
    r_w ~ U(r_w^(min), 1) times as wide as the image, at a uniform position inside the image.
    """
    apply, crop, *ratios, up, down, right = jax.random.uniform(key, (8,))
    crop_ratio = jnp.where(
        crop < config.crop_probability, scale(ratios[0], config.min_crop, 1.0), 1.0
    )
    height_ratio = scale(ratios[1], config.min_height, 1.0 / crop_ratio)
    width_ratio = scale(ratios[2], config.min_width, 1.0)
    crop_height = _pixels(crop_ratio * height, height)
    patch_height = _pixels(height_ratio * crop_ratio * height, height)
    patch_width = _pixels(width_ratio * width, width)
    drawn = Placement(
        source=Box(start(up, height - crop_height), 0, crop_height, width),
        target=Box(
            start(down, height - patch_height),
            start(right, width - patch_width),
            patch_height,
            patch_width,
        ),
    )
    return _select(apply < config.probability, drawn, identity(height, width))


def random_shifting(keys: jax.Array, images: ArrayLike, config: RandomShiftingConfig) -> jax.Array:
    """RSA: crops, resizes and shifts each image on a canvas of `config.fill`.

    Args:
        keys: One key per image, [B].
        images: [B, H, W, 3], values 0..255.
        config: See `draw_shifting`.

    Returns:
        float32 [B, H, W, 3], values 0..255.
    """
    return _draw_and_apply(partial(draw_shifting, config=config), keys, images, config.fill)


def draw_crop(key: jax.Array, height: int, width: int, config: RandomCropConfig) -> Placement:
    """Draws one image's placement for padding and cropping: a shift of at most the padding."""
    apply, vertical, horizontal = jax.random.uniform(key, (3,))
    padding = round(config.padding * height)
    source, _ = unchanged = identity(height, width)
    target = source._replace(
        top=start(vertical, 2 * padding) - padding, left=start(horizontal, 2 * padding) - padding
    )
    return _select(apply < config.probability, Placement(source, target), unchanged)


def random_crop(keys: jax.Array, images: ArrayLike, config: RandomCropConfig) -> jax.Array:
    """Pads each image with black on all sides and crops its original size at a uniform position.

    Arguments and result are as in `random_shifting`.
    """
    return _draw_and_apply(partial(draw_crop, config=config), keys, images, 0)


def draw_crop_resize_shift(
    key: jax.Array, height: int, width: int, config: CropResizeShiftConfig
) -> Placement:
    """Draws one image's crop, which is resized to the full image, and its translation."""
    apply, high, wide, up, left, *shifts = jax.random.uniform(key, (7,))
    crop_height = _pixels(scale(high, config.min_crop, 1.0) * height, height)
    crop_width = _pixels(scale(wide, config.min_crop, 1.0) * width, width)
    vertical, horizontal = (scale(x, -config.max_shift, config.max_shift) for x in shifts)
    drawn = Placement(
        source=Box(
            start(up, height - crop_height),
            start(left, width - crop_width),
            crop_height,
            crop_width,
        ),
        target=Box(_round(vertical * height), _round(horizontal * width), height, width),
    )
    return _select(apply < config.probability, drawn, identity(height, width))


def crop_resize_shift(
    keys: jax.Array, images: ArrayLike, config: CropResizeShiftConfig, fill: int = 127
) -> jax.Array:
    """RCRS (IV-D): crops each image, resizes the crop to the full size, and translates it.

    Parts that leave the image are lost. `fill` defaults to the value of RSA. Other arguments and
    the result are as in `random_shifting`.
    """
    return _draw_and_apply(partial(draw_crop_resize_shift, config=config), keys, images, fill)


def _draw_and_apply(
    draw: Callable[..., Placement], keys: jax.Array, images: ArrayLike, fill: int
) -> jax.Array:
    _, height, width, _ = jnp.shape(images)
    placement = jax.vmap(partial(draw, height=height, width=width))(keys)
    return crop_resize_paste(images, placement, fill)


def _select(chosen: jax.Array, drawn: Placement, otherwise: Placement) -> Placement:
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), drawn, otherwise)


def _round(length: jax.Array) -> jax.Array:
    return jnp.round(length).astype(jnp.int32)


def _pixels(length: jax.Array, limit: int) -> jax.Array:
    return jnp.clip(_round(length), 1, limit)
