"""Normalization of pixel values for the network's input."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's red, green and blue values, in 0..1."""
STD = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's red, green and blue values, in 0..1."""


def normalize(images: ArrayLike, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Normalizes by ImageNet's statistics: (images / 255 - MEAN) / STD.

    Args:
        images: RGB values 0..255 of any type, [..., 3].
        dtype: Type of the result.

    Returns:
        Normalized values, [..., 3].
    """
    images = jnp.asarray(images, jnp.float32)
    shape = (1,) * (images.ndim - 1) + (3,)
    scale = np.float32(1 / (255 * np.array(STD))).reshape(shape)
    shift = np.float32(np.array(MEAN) / STD).reshape(shape)
    return (images * scale - shift).astype(dtype)
