"""Uniform distributions of the augmentations, from uniform numbers in [0, 1)."""

import jax
import jax.numpy as jnp


def scale(u: jax.Array, low: float | jax.Array, high: float | jax.Array) -> jax.Array:
    """Maps u ~ U(0, 1) to U(low, high)."""
    return low + u * (high - low)


def start(u: jax.Array, largest: int | jax.Array) -> jax.Array:
    """Maps u ~ U(0, 1) to a uniform integer in 0..largest."""
    drawn = jnp.floor(u * (largest + 1)).astype(jnp.int32)
    # The product can round up to largest + 1.
    return jnp.minimum(drawn, largest)
