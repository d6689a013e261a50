"""Convolution with explicit padding."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from rmgl_jax import cpu

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He's initialization over the outgoing connections, as in torchvision's ResNet."""


class Conv(nn.Module):
    """Square convolution without bias: `[B, H, W, C] -> [B, H/strides, W/strides, features]`.

    The padding is `(kernel_size - 1) / 2` rows and columns of zeros on every side, whatever the
    stride. ("SAME" would pad a strided convolution on one side only, which is another function than
    the one that published weights were trained for.)
    """

    features: int
    """Channels of the output."""
    kernel_size: int
    """Rows and columns of the kernel; odd."""
    strides: int = 1
    """Rows and columns between two outputs."""
    dtype: jax.typing.DTypeLike = jnp.float32
    """Arithmetic of the convolution. The kernel is stored in float32."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", he_normal, shape)
        return cpu.convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.strides)
