"""From pixel values to what the network reads."""

import jax
import jax.numpy as jnp
import numpy as np

MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's red, green and blue, of values 0..1."""
STD = (0.229, 0.224, 0.225)
"""Their standard deviation."""


def normalize(images: jax.typing.ArrayLike, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    """Pixel values 0..255, [..., 3] of any type, scaled to ImageNet's mean and deviation."""
    images = jnp.asarray(images, jnp.float32)
    shape = (1,) * (images.ndim - 1) + (3,)
    scale = np.float32(1 / (255 * np.array(STD))).reshape(shape)
    shift = np.float32(np.array(MEAN) / STD).reshape(shape)
    return (images * scale - shift).astype(dtype)
