"""Convolution, written so that XLA runs it fast on every backend."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from rmgl_jax.cpu import winograd

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He's initialization over the outgoing connections, as torchvision's ResNet has it."""


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
            x = x[:, ::stride, ::stride, :]
            return product(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:3], -1)
        if winograd.suits(x, kernel, stride):
            return winograd.convolve(x, kernel)
        return winograd.plain(x, kernel, stride)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Matrix product `[M, C], [C, F] -> [M, F]` of a great M, with a faster gradient on CPUs."""
    return jnp.dot(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(x, kernel), (x, kernel)


def _backward(
    operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = operands
    by_kernel = lax.platform_dependent(x, cotangent, cpu=_over_rows, default=_plainly_over_rows)
    return jnp.dot(cotangent, kernel.T), by_kernel


product.defvjp(_forward, _backward)


def _plainly_over_rows(x: jax.Array, y: jax.Array) -> jax.Array:
    return lax.dot_general(x, y, (((0,), (0,)), ((), ())))


def _over_rows(x: jax.Array, y: jax.Array) -> jax.Array:
    """The transpose of `x` times `y`, with the narrower of them transposed beforehand.

    XLA's product on the CPU transposes the left one while it multiplies. With a wide left one that
    takes up to 0.4 of the time.
    """
    if x.shape[1] > y.shape[1]:
        return _over_rows(y, x).T
    # Without the barrier the transposition would become a part of the product again.
    return jnp.dot(lax.optimization_barrier(x.T), y)
