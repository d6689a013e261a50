"""Augmentation of a training batch, on the device and inside the compiled training step.

All random numbers of an image come from its own key, with a separate subkey for each augmentation.
So the result does not depend on how a batch is split over devices or steps, and enabling one
augmentation does not change the random numbers of the others.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from rmgl_jax.config import AugmentConfig
from rmgl_jax.data.normalization import normalize
from rmgl_jax.data.photometric import color_jitter, random_erasing
from rmgl_jax.data.shifting import crop_resize_shift, random_crop, random_shifting

__all__ = ["augment", "normalize", "random_flip"]


def augment(
    key: jax.Array,
    images: ArrayLike,
    config: AugmentConfig,
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """Augments and normalizes a batch for the network's input in training.

    The order is flip, color jitter, random cropping, RCRS, RSA, random erasing; augmentations of
    probability 0 are not compiled. Color jitter precedes the geometric augmentations, so that it
    does not change the fill; erasing is last, so that its rectangle is never cropped.

    Args:
        key: One key per image, [B], or a single key, from which image i gets `fold_in(key, i)`.
        images: uint8 [B, H, W, 3].
        config: Probabilities and ranges of the augmentations.
        dtype: Type of the result.

    Returns:
        [B, H, W, 3], normalized.

    Raises:
        TypeError: If the images are not uint8, or the key was not made by `jax.random.key`.
        ValueError: If the images are not [B, H, W, 3], or the keys are neither [] nor [B].
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


def random_flip(keys: jax.Array, images: ArrayLike, probability: float) -> jax.Array:
    """Mirrors each image of [B, H, W, C] left to right with the given probability; keys are [B]."""
    mirrored = jax.vmap(lambda key: jax.random.bernoulli(key, float(probability)))(keys)
    images = jnp.asarray(images)
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def _image_keys(key: jax.Array, batch: int) -> jax.Array:
    dtype = getattr(key, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(f"augment needs keys made by jax.random.key, got {key!r}.")
    if key.ndim == 0:
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))
    if key.shape != (batch,):
        raise ValueError(f"augment needs one key per image, [{batch}], got {key.shape}.")
    return key
