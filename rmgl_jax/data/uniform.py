"""From a uniform number in [0, 1) to the laws of the augmentations."""

import jax
import jax.numpy as jnp


def scale(u: jax.Array, low: jax.typing.ArrayLike, high: jax.typing.ArrayLike) -> jax.Array:
    """U(low, high)."""
    return low + u * (high - low)


def start(u: jax.Array, room: jax.typing.ArrayLike) -> jax.Array:
    """Uniform among the whole numbers 0, ..., `room`."""
    drawn = jnp.floor(u * (room + 1)).astype(jnp.int32)
    # The product of the largest u can round up to room + 1.
    return jnp.minimum(drawn, room)
