"""Random shifting augmentation (RSA, III-D), and the rivals of Table VI that move the image too.

Each is a `draw_...` of one image's random placement and a `random_...` that draws and applies it to
a batch. Boxes are rounded to whole pixels, as a crop, a resize and a paste would.

All of an image's random numbers come from one call of the generator: each call is compiled anew,
and they are most of what there is to compile.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from rmgl_jax.config import CropResizeShiftConfig, RandomCropConfig, RandomShiftingConfig
from rmgl_jax.data.geometric import Box, Placement, place, whole
from rmgl_jax.data.uniform import scale, start


def draw_shifting(
    key: jax.Array, height: int, width: int, config: RandomShiftingConfig
) -> Placement:
    """Draws one image's crop, patch size and location.

    With probability p: with probability p_c a strip of r_c ~ U(r_c^(min), 1) of the height
    is cropped at a uniform position (else r_c = 1); the patch is r_h ~ U(r_h^(min), 1/r_c) times as
    high as the crop and r_w ~ U(r_w^(min), 1) times as wide as the image, and lies uniformly
    within the image's box. Otherwise nothing changes.
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
    return _sometimes(apply < config.probability, drawn, whole(height, width))


def random_shifting(
    keys: jax.Array, images: jax.typing.ArrayLike, config: RandomShiftingConfig
) -> jax.Array:
    """RSA: crops, resizes and shifts every image inside its box; the rest is `config.fill`.

    Args:
        keys: One key per image, [B].
        images: [B, H, W, 3], values 0..255.
        config: See `draw_shifting`.

    Returns:
        float32 [B, H, W, 3], values 0..255.
    """
    return _place_drawn(partial(draw_shifting, config=config), keys, images, config.fill)


def draw_crop(key: jax.Array, height: int, width: int, config: RandomCropConfig) -> Placement:
    """Draws one image's place after padding and cropping: a shift of up to the padding."""
    apply, vertical, horizontal = jax.random.uniform(key, (3,))
    padding = round(config.padding * height)
    source, _ = unchanged = whole(height, width)
    target = source._replace(
        top=start(vertical, 2 * padding) - padding, left=start(horizontal, 2 * padding) - padding
    )
    return _sometimes(apply < config.probability, Placement(source, target), unchanged)


def random_crop(
    keys: jax.Array, images: jax.typing.ArrayLike, config: RandomCropConfig
) -> jax.Array:
    """Pads every image with black on all sides and crops its size at a uniform position.

    Args and result as of `random_shifting`.
    """
    return _place_drawn(partial(draw_crop, config=config), keys, images, 0)


def draw_crop_resize_shift(
    key: jax.Array, height: int, width: int, config: CropResizeShiftConfig
) -> Placement:
    """Draws one image's crop, which is to fill the box, and the box's shift."""
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
    return _sometimes(apply < config.probability, drawn, whole(height, width))


def crop_resize_shift(
    keys: jax.Array, images: jax.typing.ArrayLike, config: CropResizeShiftConfig, fill: int = 127
) -> jax.Array:
    """RCRS (IV-D): crops, resizes to the full size, and translates, losing what leaves the box.

    `fill` is RSA's by default, so that the two differ in nothing else; other arguments and the
    result as of `random_shifting`.
    """
    return _place_drawn(partial(draw_crop_resize_shift, config=config), keys, images, fill)


def _place_drawn(
    draw: Callable[..., Placement], keys: jax.Array, images: jax.typing.ArrayLike, fill: int
) -> jax.Array:
    _, height, width, _ = jnp.shape(images)
    placement = jax.vmap(partial(draw, height=height, width=width))(keys)
    return place(images, placement, fill)


def _sometimes(chosen: jax.Array, drawn: Placement, otherwise: Placement) -> Placement:
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), drawn, otherwise)


def _round(length: jax.Array) -> jax.Array:
    return jnp.round(length).astype(jnp.int32)


def _pixels(length: jax.Array, limit: int) -> jax.Array:
    return jnp.clip(_round(length), 1, limit)
