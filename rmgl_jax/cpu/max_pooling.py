"""3x3 max pooling of stride 2 whose gradient CPUs compute in parallel.

XLA's gradient of a maximum over windows visits one window after another on one core, which took a
CPU longer than the stem's convolution (docs/performance.md). Here every position of the input
gathers from the windows that contain it. Accelerators use XLA's.
"""

import jax
import jax.numpy as jnp
from jax import lax

from rmgl_jax.cpu import plain


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Maximum of 3x3 windows centered on every second position: `[B, H, W, C] -> [B, H/2, W/2, C]`.

    The gradient goes to the first maximum of a window, in row-major order.
    """
    return plain.max_pool(x)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return max_pool(x), x


def _backward(x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    def windows(x: jax.Array, cotangent: jax.Array) -> jax.Array:
        return jax.vjp(plain.max_pool, x)[1](cotangent)[0]

    return (lax.platform_dependent(x, cotangent, cpu=_gather, default=windows),)


max_pool.defvjp(_forward, _backward)


def _gather(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """The gradient by the input, computed for even and odd rows and columns separately."""
    height, width = x.shape[1:3]
    # The barrier keeps XLA from computing it in each of the nine comparisons below.
    first = lax.optimization_barrier(_first_maximum(x, *cotangent.shape[1:3]))

    def part(row: int, column: int) -> jax.Array:
        """Gradients that windows send to their position (row, column), at the position's window."""
        sent = jnp.where(first == 3 * row + column, cotangent, 0)
        # Row 0 of window i + 1 is row 2 of window i.
        down, right = int(row == 0), int(column == 0)
        sent = jnp.pad(sent, ((0, 0), (0, down), (0, right), (0, 0)))
        return sent[:, down:, right:]

    even = [part(1, 1), part(1, 2) + part(1, 0)]
    odd = [part(2, 1) + part(0, 1), part(2, 2) + part(0, 2) + part(2, 0) + part(0, 0)]
    lines = [jnp.stack(line, axis=3) for line in (even, odd)]
    out = jnp.stack(lines, axis=2)  # [B, H/2, 2, W/2, 2, C]
    out = out.reshape(x.shape[0], 2 * cotangent.shape[1], 2 * cotangent.shape[2], x.shape[3])
    return out[:, :height, :width]


def _first_maximum(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """Position of each window's first maximum, `3 * row + column`."""
    frame = ((0, 0), (1, x.shape[1] % 2), (1, x.shape[2] % 2), (0, 0))
    x = jnp.pad(x, frame, constant_values=-jnp.inf)
    entries = (
        x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2]
        for i in range(3)
        for j in range(3)
    )
    largest = next(entries)
    index = jnp.zeros(largest.shape, jnp.int8)
    for position, entry in enumerate(entries, start=1):
        larger = entry > largest
        largest = jnp.where(larger, entry, largest)
        index = jnp.where(larger, jnp.int8(position), index)
    return index
