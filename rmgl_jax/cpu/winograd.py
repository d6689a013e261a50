"""3x3 convolution with half the multiplications, for CPUs (Winograd; Lavin and Gray, CVPR 2016).

On a CPU a wide convolution is bound by its arithmetic. F(2x2, 3x3) computes 2x2 outputs from 4x4
inputs by 16 products instead of 36. Each of the 16 is a matrix product over all tiles and channels.
The transforms before and after them only add, so rounding errors are as small as those of the plain
sum. The three products of a training step took 0.5 to 0.7 of the time of XLA's own convolution
(docs/performance.md). Accelerators have faster algorithms of their own and run plain convolution.
"""

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from rmgl_jax.cpu import plain

Grid = Sequence[Sequence[jax.Array]]
Matrix = tuple[tuple[float, ...], ...]

# A tile's output is A' (G k G' * B' x B) A for a tile x of the input and the kernel k.
_INPUT: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B'
_KERNEL: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G
_OUTPUT: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))  # A'

_FORWARD_CHANNELS = 64
_KERNEL_GRADIENT_CHANNELS = 128


def suits(x: jax.Array, kernel: jax.Array, stride: int) -> bool:
    """True if `convolve` computes this convolution, and faster than XLA's own on a CPU.

    With fewer channels the transforms take as long as they save.
    """
    wide = min(kernel.shape[2:]) >= _FORWARD_CHANNELS
    return kernel.shape[:2] == (3, 3) and stride == 1 and wide and x.dtype == jnp.float32


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution of stride 1, padded by 1: `[B, H, W, C], [3, 3, C, F] -> [B, H, W, F]`."""
    return lax.platform_dependent(x, kernel, cpu=_by_tiles, default=plain.convolution)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return convolve(x, kernel), (x, kernel)


def _backward(
    operands: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def by_xla(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(plain.convolution, x, kernel)[1](g)

    def by_tiles(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The gradient by the input is the convolution by the mirrored kernel, outputs to inputs.
        by_input = _by_tiles(g, kernel[::-1, ::-1], transpose=True)
        if min(kernel.shape[2:]) < _KERNEL_GRADIENT_CHANNELS:
            return by_input, by_xla(x, kernel, g)[1]
        return by_input, _kernel_gradient(x, g)

    return lax.platform_dependent(*operands, cotangent, cpu=by_tiles, default=by_xla)


convolve.defvjp(_forward, _backward)


def _by_tiles(x: jax.Array, kernel: jax.Array, transpose: bool = False) -> jax.Array:
    """The convolution. With `transpose` it maps F channels to C instead of C to F."""
    batch, height, width, _ = x.shape
    tiles = _transform(_INPUT, _tiles(x, 4))
    kernels = _transform(_KERNEL, [[kernel[i, j] for j in range(3)] for i in range(3)])
    products = _products(tiles, kernels, (1, 1 if transpose else 0))
    corners = _transform(_OUTPUT, products)
    shape = (batch, -(-height // 2), -(-width // 2), kernel.shape[2 if transpose else 3])
    lines = [jnp.stack([y.reshape(shape) for y in line], axis=3) for line in corners]
    out = jnp.stack(lines, axis=2)  # [B, H/2, 2, W/2, 2, F]
    out = out.reshape(batch, 2 * shape[1], 2 * shape[2], shape[3])
    return out[:, :height, :width]


def _kernel_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """The gradient by the kernel: the transposed transforms in reverse order."""
    tiles = _transform(_INPUT, _tiles(x, 4))
    cotangents = _transform(_transposed(_OUTPUT), _tiles(cotangent, 2))
    gradients = _transform(_transposed(_KERNEL), _products(tiles, cotangents, (0, 0)))
    return jnp.stack([jnp.stack(line) for line in gradients])


def _tiles(x: jax.Array, size: int) -> Grid:
    """Entry (i, j) of all tiles of size x size, one at every second position: `[tiles, C]`.

    The map is padded by (size - 2) / 2 zeros on every side, and an odd one to an even size.
    """
    rows, columns, frame = -(-x.shape[1] // 2), -(-x.shape[2] // 2), (size - 2) // 2
    # Without the barrier XLA computes the map again for each of a tile's 16 entries.
    x = lax.optimization_barrier(x)
    spare = ((frame, frame + x.shape[1] % 2), (frame, frame + x.shape[2] % 2))
    x = jnp.pad(x, ((0, 0), *spare, (0, 0)))
    return [
        [x[:, i::2, j::2][:, :rows, :columns].reshape(-1, x.shape[3]) for j in range(size)]
        for i in range(size)
    ]


def _transform(matrix: Matrix, grid: Grid) -> Grid:
    """M X M' for a matrix X whose entries are arrays."""
    lines = [[_combine(row, column) for column in zip(*grid, strict=True)] for row in matrix]
    return [[_combine(row, line) for row in matrix] for line in lines]


def _combine(weights: Sequence[float], arrays: Sequence[jax.Array]) -> jax.Array:
    """Weighted sum of arrays; zero weights are skipped."""
    terms = (
        array if weight == 1 else -array if weight == -1 else weight * array
        for weight, array in zip(weights, arrays, strict=True)
        if weight
    )
    return functools.reduce(operator.add, terms)


def _products(left: Grid, right: Grid, axes: tuple[int, int]) -> Grid:
    """Matrix products of corresponding entries, each contracted over the two given axes."""
    contract = ((axes[:1], axes[1:]), ((), ()))
    return [
        [lax.dot_general(a, b, contract) for a, b in zip(*lines, strict=True)]
        for lines in zip(left, right, strict=True)
    ]


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))
