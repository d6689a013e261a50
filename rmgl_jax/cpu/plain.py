"""XLA's own operations, for accelerators and for CPUs without the kernels of this package."""

import jax
import jax.numpy as jnp
from jax import lax


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution by an odd square kernel: `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`.

    The padding is `(k - 1) / 2` zeros on every side, whatever the stride.
    """
    padding = (kernel.shape[0] - 1) // 2
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 max pooling of stride 2: `[B, H, W, C] -> [B, H/2, W/2, C]`."""
    padding = ((0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)
