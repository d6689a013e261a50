"""Convolution, written so that XLA runs it fast on every backend."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He's initialisation over the outgoing connections, as torchvision's ResNet has it."""


class Conv(nn.Module):
    """Square convolution without bias: `[B, H, W, C] -> [B, H/strides, W/strides, features]`.

    The padding is `(kernel_size - 1) / 2` rows and columns of zeros on every side, whatever the
    stride. ("SAME" would pad a strided convolution on one side only, and compute another function
    than the published weights were trained for.)
    """

    features: int
    """Channels of the output."""
    kernel_size: int
    """Rows and columns of the kernel; odd."""
    strides: int = 1
    """Rows and columns between two outputs."""
    dtype: jnp.dtype = jnp.float32
    """Arithmetic of the convolution. The kernel is stored in float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x`."""
        size, stride = self.kernel_size, self.strides
        kernel = self.param("kernel", he_normal, (size, size, x.shape[-1], self.features))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if size == 1:
            # A 1x1 convolution is a matrix product, which CPUs do considerably faster.
            return jnp.dot(x[:, ::stride, ::stride, :], kernel[0, 0])
        padding = (size - 1) // 2
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding=[(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
