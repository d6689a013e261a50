"""1x1 convolution as a matrix product, which CPUs compute considerably faster."""

import jax
import jax.numpy as jnp
from jax import lax


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """1x1 convolution: `[B, H, W, C], [1, 1, C, F] -> [B, H/stride, W/stride, F]`."""
    x = x[:, ::stride, ::stride, :]
    return product(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:3], -1)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Matrix product `[M, C], [C, F] -> [M, F]` for large M, with a faster gradient on CPUs."""
    return jnp.dot(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return product(x, kernel), (x, kernel)


def _backward(
    operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = operands
    by_kernel = lax.platform_dependent(
        x, cotangent, cpu=_transposed_product, default=_plain_transposed_product
    )
    return jnp.dot(cotangent, kernel.T), by_kernel


product.defvjp(_forward, _backward)


def _plain_transposed_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """The transpose of `x` times `y`: `[M, C], [M, F] -> [C, F]`."""
    return lax.dot_general(x, y, (((0,), (0,)), ((), ())))


def _transposed_product(x: jax.Array, y: jax.Array) -> jax.Array:
    """The transpose of `x` times `y`, where the narrower of the two is transposed beforehand.

    XLA's product on the CPU transposes its left operand while it multiplies. With a wide left
    operand this takes up to 0.4 of the time.
    """
    if x.shape[1] > y.shape[1]:
        return _transposed_product(y, x).T
    # Without the barrier XLA merges the transposition into the product again.
    return jnp.dot(lax.optimization_barrier(x.T), y)
