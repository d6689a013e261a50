"""Backbone weights in the names of torchvision's and timm's ResNet: loading and saving."""

import itertools
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from data_prep.errors import InputError, MissingFileError, MissingPackageError
from data_prep.files import check_file, expand, write_bytes
from rmgl_jax.config import ModelConfig
from rmgl_jax.models.rmgl import branch_modules

Variables = Mapping[str, Any]

LARGEST = 2**33
"""The most bytes of a weights file."""
_FLOATS = ("F16", "F32", "F64")
_STRIDE = "stride_in_1x1"  # in the metadata of files that `save_backbone` writes

# Torchvision's name of every array, and its path in `variables` (without "backbone", which follows
# the collection). `block` counts from 0 and `number` from 1; `i` is 1, 2, 3.
WEIGHTS = {
    "conv1.weight": "params/stem/conv/kernel",
    "bn1.weight": "params/stem/bn/scale",
    "bn1.bias": "params/stem/bn/bias",
    "bn1.running_mean": "batch_stats/stem/bn/mean",
    "bn1.running_var": "batch_stats/stem/bn/var",
    "{layer}.{block}.conv{i}.weight": "params/{stage}/block{number}/conv{i}/kernel",
    "{layer}.{block}.bn{i}.weight": "params/{stage}/block{number}/bn{i}/scale",
    "{layer}.{block}.bn{i}.bias": "params/{stage}/block{number}/bn{i}/bias",
    "{layer}.{block}.bn{i}.running_mean": "batch_stats/{stage}/block{number}/bn{i}/mean",
    "{layer}.{block}.bn{i}.running_var": "batch_stats/{stage}/block{number}/bn{i}/var",
    "{layer}.0.downsample.0.weight": "params/{stage}/block1/conv_shortcut/kernel",
    "{layer}.0.downsample.1.weight": "params/{stage}/block1/bn_shortcut/scale",
    "{layer}.0.downsample.1.bias": "params/{stage}/block1/bn_shortcut/bias",
    "{layer}.0.downsample.1.running_mean": "batch_stats/{stage}/block1/bn_shortcut/mean",
    "{layer}.0.downsample.1.running_var": "batch_stats/{stage}/block1/bn_shortcut/var",
}


def weight_map(config: ModelConfig, granularity: int) -> dict[str, tuple[str, ...]]:
    """Path in `variables` of every array of a ResNet file, for the branch of one granularity."""
    paths = {}
    for module in branch_modules(config, granularity):
        segment = module.segment
        if segment is None:
            continue  # The stem's names are filled in with those of the first stage.
        blocks = range(segment.start, segment.stop)
        for block, i, name in itertools.product(blocks, (1, 2, 3), WEIGHTS):
            if segment.start > 0 and "{block}" not in name:
                continue  # Of the stem and of the stage's first block.
            path = WEIGHTS[name].format(stage=module.name, number=block + 1, i=i)
            collection, *modules = path.split("/")
            name = name.format(layer=segment.stage.torch_name, block=block, i=i)
            paths[name] = (collection, "backbone", *modules)
    return paths


def load_backbone(path: str | os.PathLike[str], variables: Variables, config: ModelConfig) -> dict:
    """Variables whose backbone is that of a ResNet file; every branch gets a copy of its stages.

    The file has torchvision's names (`conv1.weight`, `layer1.0.bn1.running_mean`, ...), which are
    also timm's. It is a `.safetensors` file or, if PyTorch is installed, a `.pth` or `.pt` file
    (only tensors are unpickled). Its classifier (`fc.*`) and counters (`num_batches_tracked`) are
    ignored, and so is `layer4` if the network ends at res4. A file without any `layer4` leaves res5
    as it is in `variables`, with a warning. The heads are not changed, and neither is `variables`.

    Files of others do not say where their strides are: `config.stride_in_1x1` must be what they
    were trained with (False for torchvision). Those of `save_backbone` do, and are checked.

    Raises:
        MissingFileError: The file does not exist.
        InputError: The file is of another kind or damaged, or arrays are missing, unexpected, of a
            wrong shape or type (floating point is expected), not finite as float32, or variances
            below 0. The message lists all of them. Or its strides are elsewhere.
        MissingPackageError: The file needs PyTorch, which is not installed.
        ValueError: `variables` does not fit `config`.
    """
    path = expand(path)
    arrays = _read(path)
    _check_stride(path, config)
    flat = traverse_util.flatten_dict(dict(variables))
    branches = [weight_map(config, granularity) for granularity in config.granularities]
    _check_variables(flat, branches)
    expected = {name: _torch_shape(flat[place].shape) for name, place in branches[0].items()}

    has_layer4 = any(name.startswith("layer4.") for name in arrays)
    keeps_res5 = config.last_stage == "res5" and not has_layer4
    if config.last_stage == "res4":
        arrays = {name: a for name, a in arrays.items() if not name.startswith("layer4.")}
    if keeps_res5:
        expected = {name: s for name, s in expected.items() if not name.startswith("layer4.")}
    _check_arrays(path, arrays, expected, config)
    if keeps_res5:
        kept = ", ".join(
            branch_modules(config, granularity)[-1].name for granularity in config.granularities
        )
        warnings.warn(f"{path} has no layer4: {kept} keep their random values.", stacklevel=2)

    for branch in branches:
        for name, value in arrays.items():
            # A separate copy for every place, because donated buffers must be distinct.
            flat[branch[name]] = jnp.array(_from_torch(value))
    return traverse_util.unflatten_dict(flat)


def save_backbone(
    path: str | os.PathLike[str], variables: Variables, config: ModelConfig, branch: int = 0
) -> None:
    """Writes the shared stages and those of one branch as a `.safetensors` ResNet file.

    The names are torchvision's, so that `load_backbone` and a torch ResNet (without `fc`) read it.
    The file is written completely or not at all.

    Raises:
        MissingFileError: The directory of `path` does not exist.
        InputError: `path` does not end in `.safetensors`.
        ValueError: There is no such branch, or `variables` does not fit `config`.
    """
    path = expand(path)
    if path.suffix != ".safetensors":
        raise InputError(f"save_backbone writes .safetensors files, got {path}.")
    if not 0 <= branch < len(config.granularities):
        raise ValueError(
            f"branch must be in 0..{len(config.granularities) - 1} (granularities "
            f"{config.granularities}), got {branch}."
        )
    if not path.parent.is_dir():
        raise MissingFileError(f"There is no directory {path.parent} to write {path.name} to.")
    flat = traverse_util.flatten_dict(dict(variables))
    places = weight_map(config, config.granularities[branch])
    _check_variables(flat, [places])
    arrays = {name: _to_torch(np.asarray(flat[place])) for name, place in places.items()}
    write_bytes(path, save(arrays, metadata={_STRIDE: str(config.stride_in_1x1)}))


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, without those that a backbone does not need."""
    check_file(path, LARGEST)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pth", ".pt"):
        return _read_torch(path)
    raise InputError(f"Weights must be a .safetensors, .pth or .pt file, got {path}.")


def _check_stride(path: Path, config: ModelConfig) -> None:
    """Refuses other places of the strides than those that `save_backbone` has recorded."""
    if path.suffix != ".safetensors":
        return
    with safe_open(path, framework="numpy") as file:
        recorded = (file.metadata() or {}).get(_STRIDE)
    if recorded in ("True", "False") and recorded != str(config.stride_in_1x1):
        raise InputError(
            f"{path} was saved with {_STRIDE} {recorded}, but the model has "
            f"{config.stride_in_1x1}: its strides would be in other convolutions."
        )


def _is_needed(name: str) -> bool:
    return not name.startswith("fc.") and not name.endswith("num_batches_tracked")


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            names = list(filter(_is_needed, file.keys()))
            types = {name: file.get_slice(name).get_dtype() for name in names}
            # NumPy has no type for others, such as BF16.
            other = [f"{name} ({types[name]})" for name in names if types[name] not in _FLOATS]
            if other:
                raise InputError(
                    f"{path} has arrays that are none of {', '.join(_FLOATS)}: {', '.join(other)}."
                )
            return {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise InputError(f"{path} is not a complete safetensors file: {error}.") from error


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            f"{path} needs PyTorch (pip install 'rmgl_jax[torch]'); .safetensors files do not."
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise errors of many kinds
        raise InputError(f"{path} is not a complete torch file of tensors only.") from error
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and torch.is_tensor(value) for name, value in content.items()
    ):
        raise InputError(
            f"{path} must hold a flat dictionary of named tensors (a model's state_dict)."
        )
    tensors = {name: tensor for name, tensor in content.items() if _is_needed(name)}
    other = [
        f"{name} ({tensor.dtype}, {tensor.layout}, {tensor.device})"
        for name, tensor in tensors.items()
        if not tensor.is_floating_point()
        or tensor.is_quantized
        or tensor.is_meta
        or tensor.layout != torch.strided
    ]
    if other:
        raise InputError(
            f"{path} has tensors that are not dense floating-point values: {', '.join(other)}."
        )
    # NumPy has no bfloat16, and float32 is not enough to see values that are too large for it.
    return {name: tensor.detach().double().numpy() for name, tensor in tensors.items()}


def _check_variables(
    flat: Mapping[tuple[str, ...], Any], branches: list[dict[str, tuple[str, ...]]]
) -> None:
    for branch in branches:
        for place in branch.values():
            if place not in flat:
                raise ValueError(f"variables does not fit the configuration: no {'/'.join(place)}.")


def _check_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    config: ModelConfig,
) -> None:
    """Raises an error that lists all differences between the arrays and the expected shapes."""
    known = {name: value for name, value in arrays.items() if name in expected}
    finite = {name: value for name, value in known.items() if np.isfinite(value).all()}
    largest = np.finfo(np.float32).max
    problems = {
        "missing": sorted(expected.keys() - arrays.keys()),
        "unexpected": sorted(arrays.keys() - expected.keys()),
        "of a wrong shape": [
            f"{name} (file {value.shape}, network {expected[name]})"
            for name, value in known.items()
            if value.shape != expected[name]
        ],
        "not finite": sorted(known.keys() - finite.keys()),
        "too large for float32": [
            name for name, value in finite.items() if (np.abs(value) > largest).any()
        ],
        "variances below 0": [
            name
            for name, value in finite.items()
            if name.endswith("running_var") and (value < 0).any()
        ],
    }
    if any(problems.values()):
        listed = "; ".join(
            f"{kind}: {', '.join(names)}" for kind, names in problems.items() if names
        )
        raise InputError(
            f"{path} does not fit a backbone of depth {config.depth} and width {config.width}. "
            f"{listed}."
        )


def _from_torch(value: np.ndarray) -> np.ndarray:
    """A float32 array, with the axes of a convolution as HWIO instead of OIHW."""
    value = value.astype(np.float32)
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else tuple(shape)


def _to_torch(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)
