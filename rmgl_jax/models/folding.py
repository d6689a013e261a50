"""Batch norm folded into the kernels before it, for inference.

In evaluation a batch norm is a factor and a summand for each channel. The factor scales the kernel
of the convolution before it; the summand is all that is left of the layer.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util


class Shift(nn.Module):
    """The summand of a batch norm whose factor is folded into the kernel before it."""

    axes: int = 1
    """Trailing axes of the input, for each entry of which there is a summand."""

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool) -> jax.Array:
        """Adds the summand in float32, and returns the type of `x`.

        Raises:
            ValueError: `use_running_average` is false: a folded batch norm is not trained.
        """
        if not use_running_average:
            raise ValueError("A network with folded batch norm is for inference only.")
        bias = self.param("bias", nn.initializers.zeros, x.shape[-self.axes :])
        bias = bias.reshape((1,) * (x.ndim - self.axes) + bias.shape)
        return (x + bias).astype(x.dtype)


def fold_batch_norm(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Computes the variables of `RMGL(config, folded=True)`, which give the same features.

    With the running statistics of a batch norm, factor = scale / sqrt(var + epsilon)::

        kernel' = kernel * factor        bias' = bias - mean * factor

    The classifiers are left out. The arithmetic is float64, on the host.

    Args:
        variables: `params` and `batch_stats` of `RMGL(config)`.

    Returns:
        `params` alone, under the same names, as float32 NumPy arrays.
    """
    arrays = traverse_util.flatten_dict(dict(variables), sep="/")

    def read(name: str) -> np.ndarray:
        return np.asarray(arrays[name], np.float64)

    folded = {}
    for name in arrays:
        module = name.removeprefix("params/").removesuffix("/kernel")
        if not name.endswith("/kernel") or module in ("classifier", "global_classifier"):
            continue
        norm = batch_norm_name(module)
        variance = read(f"batch_stats/{norm}/var")
        factor = read(f"params/{norm}/scale") / np.sqrt(variance + nn.BatchNorm.epsilon)
        bias = read(f"params/{norm}/bias") - read(f"batch_stats/{norm}/mean") * factor
        # The channels of the output are the last axis, and heads the first.
        folded[name] = np.asarray(read(name) * factor[..., None, :], np.float32, order="C")
        folded[f"params/{norm}/bias"] = bias.astype(np.float32)
    return traverse_util.unflatten_dict(folded, sep="/")


def batch_norm_name(module: str) -> str:
    """Returns the batch norm after a module with a kernel: "a/conv1" -> "a/bn1"."""
    parent, _, name = module.rpartition("/")
    return f"{parent}/{name.replace('conv', 'bn')}" if "conv" in name else f"{module}/bn"
