"""Operations and settings that exist only because XLA is slow on CPUs.

The network calls `convolution` and `max_pool`; a command-line process calls `keep_freed_memory`.
On accelerators they are XLA's own operations, and a 1x1 convolution is a matrix product. With
`RMGL_CPU_KERNELS=0` in the environment every backend runs XLA's plain operations: results then
differ by rounding only, and training on CPUs takes longer (docs/performance.md).
"""

import os

import jax

from data_prep.errors import InputError
from rmgl_jax.cpu import host_memory, max_pooling, plain, pointwise, winograd


def enabled() -> bool:
    """True unless the environment has `RMGL_CPU_KERNELS=0`.

    The environment is read when a program is traced: a function that is already compiled does not
    change.

    Raises:
        InputError: The variable is neither 0 nor 1.
    """
    value = os.environ.get("RMGL_CPU_KERNELS", "1")
    if value not in ("0", "1"):
        raise InputError(f"RMGL_CPU_KERNELS must be 0 or 1, got {value!r}.")
    return value == "1"


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Convolution by an odd square kernel: `[B, H, W, C], [k, k, C, F] -> [B, H', W', F]`.

    The padding is `(k - 1) / 2` zeros on every side, whatever the stride.
    """
    if not enabled():
        return plain.convolution(x, kernel, stride)
    if kernel.shape[:2] == (1, 1):
        return pointwise.convolve(x, kernel, stride)
    if winograd.suits(x, kernel, stride):
        return winograd.convolve(x, kernel)
    return plain.convolution(x, kernel, stride)


def max_pool(x: jax.Array) -> jax.Array:
    """3x3 max pooling of stride 2: `[B, H, W, C] -> [B, H/2, W/2, C]`.

    The gradient goes to the first maximum of a window, in row-major order.
    """
    return max_pooling.max_pool(x) if enabled() else plain.max_pool(x)


def keep_freed_memory() -> bool:
    """Configures glibc's allocator to reuse freed buffers; see `host_memory.keep_freed_memory`.

    Returns:
        True if freed memory is kept from now on.
    """
    return enabled() and host_memory.keep_freed_memory()


def options_for_one_call() -> dict[str, int] | None:
    """Returns options for `jax.jit` of a program that runs once, such as initialization.

    LLVM's last optimizations take more than half of the time to compile such a program and make it
    no faster. An initialization then differs by rounding at most (benchmarks/LOG.md).
    """
    if enabled() and jax.default_backend() == "cpu":
        return {"xla_backend_optimization_level": 1}
    return None
