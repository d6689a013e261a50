"""Weights as flat arrays: their names, digest, and checks against a configuration."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from data_prep.errors import InputError
from rmgl_jax.config import ModelConfig
from rmgl_jax.models.rmgl import RMGL


def to_arrays(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Flattens variables to contiguous arrays under slash-joined names, sorted by name."""
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return {name: np.asarray(flat[name], order="C") for name in sorted(flat)}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Inverts `to_arrays`."""
    return traverse_util.unflatten_dict(dict(arrays), sep="/")


def weights_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Computes the SHA-256 of names, types, shapes and values, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def check_layout(
    source: str, layout: Mapping[str, tuple[str, tuple[int, ...]]], config: ModelConfig
) -> None:
    """Checks that arrays have the names, types and shapes of the model's variables.

    Args:
        source: name of the weights in the error message.
        layout: type and shape of every array, by its slash-joined name.
        config: configuration of the model.

    Raises:
        InputError: naming every difference.
    """
    images = jax.ShapeDtypeStruct((1, *config.image_size, 3), jnp.float32)
    variables = jax.eval_shape(RMGL(config).init, jax.random.key(0), images)
    expected = {
        name: (leaf.dtype.name, leaf.shape)
        for name, leaf in traverse_util.flatten_dict(variables, sep="/").items()
    }
    problems = [f"{name} is missing" for name in sorted(expected.keys() - layout.keys())]
    problems += [f"{name} is unexpected" for name in sorted(layout.keys() - expected.keys())]
    problems += [
        f"{name} is {_describe(*layout[name])}, expected {_describe(*expected[name])}"
        for name in sorted(expected.keys() & layout.keys())
        if layout[name] != expected[name]
    ]
    if problems:
        raise InputError(f"{source} does not fit its configuration: {'; '.join(problems)}.")


def check_finite(source: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks that all values are finite.

    Raises:
        InputError: naming every array that contains NaN or infinity.
    """
    if bad := [name for name, array in arrays.items() if not np.isfinite(array).all()]:
        raise InputError(f"{source} contains NaN or infinity in {', '.join(bad)}.")


def _describe(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype} {list(shape)}"
