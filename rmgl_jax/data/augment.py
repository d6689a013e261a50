"""Augmentation of a training batch, on the device and inside the step's compiled program.

Everything random about an image comes from that image's own key. A batch that is cut over
devices or into parts is therefore augmented as it would be whole, and switching one
augmentation on leaves the draws of the others as they were.
"""

import jax
import jax.numpy as jnp

from rmgl_jax.config import AugmentConfig
from rmgl_jax.data.normalization import normalize
from rmgl_jax.data.photometric import color_jitter, random_erasing
from rmgl_jax.data.shifting import crop_resize_shift, random_crop, random_shifting

__all__ = ["augment", "normalize", "random_flip"]


def augment(
    key: jax.Array,
    images: jax.typing.ArrayLike,
    config: AugmentConfig,
    dtype: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
    """Augments and normalizes a batch: what the network reads in training.

    In this order: flip, color jitter, random cropping, RCRS, RSA, random erasing; those of
    probability 0 are left out of the program. Colors change before the image moves, so that the
    filled area is always the same; erasing comes last, so that its rectangle is never cut.

    Args:
        key: One key per image, [B], or a single key, from which image i gets `fold_in(key, i)`.
        images: uint8 [B, H, W, 3].
        config: What to apply, and how often.
        dtype: Of the result.

    Returns:
        [B, H, W, 3], normalized.

    Raises:
        TypeError: If the images are not uint8 or the key is not made by `jax.random.key`.
        ValueError: If the images are not [B, H, W, 3], or there is not one key for each.
    """
    images = jnp.asarray(images)
    if images.dtype != jnp.uint8:
        raise TypeError(f"augment needs uint8 images, got {images.dtype}.")
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"augment needs images of shape [B, H, W, 3], got {images.shape}.")
    keys = _image_keys(key, len(images))
    flip, jitter, crop, rcrs, shifting, erasing = jax.vmap(lambda k: jax.random.split(k, 6))(keys).T

    images = random_flip(flip, images, config.flip_probability)
    if config.jitter.probability > 0:
        images = color_jitter(jitter, images, config.jitter)
    if config.crop.probability > 0:
        images = random_crop(crop, images, config.crop)
    if config.crop_resize_shift.probability > 0:
        images = crop_resize_shift(rcrs, images, config.crop_resize_shift)
    if config.shifting.probability > 0:
        images = random_shifting(shifting, images, config.shifting)
    if config.erasing.probability > 0:
        images = random_erasing(erasing, images, config.erasing)
    return normalize(images, dtype)


def random_flip(keys: jax.Array, images: jax.typing.ArrayLike, probability: float) -> jax.Array:
    """Mirrors each image, [B, H, W, C], left to right with the given probability."""
    mirrored = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)
    images = jnp.asarray(images)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def _image_keys(key: jax.Array, batch: int) -> jax.Array:
    if not jnp.issubdtype(getattr(key, "dtype", None), jax.dtypes.prng_key):
        raise TypeError(f"augment needs keys made by jax.random.key, got {key!r}.")
    if key.ndim == 0:
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))
    if key.shape != (batch,):
        raise ValueError(f"augment needs one key per image, [{batch}], got {key.shape}.")
    return key
