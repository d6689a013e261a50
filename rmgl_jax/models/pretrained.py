"""Backbone weights in the names of torchvision's and timm's ResNet, in and out."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from rmgl_jax.config import STAGES, ModelConfig
from rmgl_jax.models.rmgl import SHARED_STAGES, stage_name

Variables = Mapping[str, Any]

_NORM_LEAVES = {
    "weight": ("params", "scale"),
    "bias": ("params", "bias"),
    "running_mean": ("batch_stats", "mean"),
    "running_var": ("batch_stats", "var"),
}


class _Leaf(NamedTuple):
    """Where an array of a torch file belongs: `variables[collection]["backbone"][stage][...]`."""

    collection: str
    stage: str
    path: tuple[str, ...]


def load_backbone(path: str | os.PathLike[str], variables: Variables, config: ModelConfig) -> dict:
    """Variables whose backbone is that of a ResNet file: shared stages, and a copy in every branch.

    The file has torchvision's names (`conv1.weight`, `layer1.0.bn1.running_mean`, ...), which are
    timm's too: `.safetensors`, or `.pth` and `.pt` if PyTorch is installed (only tensors are
    unpickled). Its classifier (`fc.*`) and counters (`num_batches_tracked`) are ignored, and so is
    `layer4` if the network ends at res4. A file without any `layer4` leaves res5 as it is in
    `variables`, with a warning. Heads are always as they were. `variables` are not changed.

    A file does not tell where its strides are: `config.stride_in_1x1` must be what it was trained
    with (False for torchvision).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is of another kind or damaged, `variables` are not of `config`, or keys
            are missing, unexpected, of a wrong shape or not finite. The message names all of them.
        ImportError: The file needs PyTorch, which is not installed.
    """
    path = Path(path)
    arrays = {
        name: value
        for name, value in _read(path).items()
        if not name.startswith("fc.") and not name.endswith("num_batches_tracked")
    }
    leaves = _leaves(config)
    if config.last_stage == "res4":
        arrays = {name: a for name, a in arrays.items() if not name.startswith("layer4.")}
    elif not any(name.startswith("layer4.") for name in arrays):
        leaves = {name: leaf for name, leaf in leaves.items() if leaf.stage != "res5"}

    flat = _flatten(variables, config)
    places = {name: _places(leaf, config) for name, leaf in leaves.items()}
    wanted = {name: _torch_shape(flat[place[0]].shape) for name, place in places.items()}
    found = {name: value for name, value in arrays.items() if name in places}
    problems = {
        "missing": sorted(places.keys() - arrays.keys()),
        "unexpected": sorted(arrays.keys() - places.keys()),
        "of a wrong shape": [
            f"{name} (file {value.shape}, network {wanted[name]})"
            for name, value in found.items()
            if value.shape != wanted[name]
        ],
        "not finite": [name for name, value in found.items() if not np.isfinite(value).all()],
    }
    if any(problems.values()):
        said = "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names)
        raise ValueError(
            f"{path} does not fit a backbone of depth {config.depth} and width {config.width}. "
            f"{said}."
        )

    for name, value in found.items():
        for place in places[name]:
            flat[place] = jnp.array(
                _from_torch(value)
            )  # a copy of its own: donated buffers must differ
    absent = [s for s in _stages(config) if all(leaf.stage != s for leaf in leaves.values())]
    if absent:
        kept = [name for stage in absent for name in _owners(stage, config)]
        warnings.warn(
            f"{path} has no layer4: {', '.join(kept)} keep their random values.", stacklevel=2
        )
    return traverse_util.unflatten_dict(flat)


def save_backbone(
    path: str | os.PathLike[str], variables: Variables, config: ModelConfig, branch: int = 0
) -> None:
    """Writes the shared stages and those of one branch as a `.safetensors` ResNet file.

    The names are torchvision's, so that `load_backbone` and a torch ResNet (without `fc`) read it.
    The file appears complete or not at all.

    Raises:
        FileNotFoundError: The folder of `path` does not exist.
        ValueError: `path` does not end in `.safetensors`, or there is no such branch.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"save_backbone writes .safetensors files, got {path}.")
    if not 0 <= branch < len(config.granularities):
        raise ValueError(
            f"branch must be in 0..{len(config.granularities) - 1} (granularities "
            f"{config.granularities}), got {branch}."
        )
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} to.")
    flat = _flatten(variables, config)
    arrays = {}
    for name, leaf in _leaves(config).items():
        places = _places(leaf, config)
        place = places[0] if len(places) == 1 else places[branch]
        arrays[name] = _to_torch(np.asarray(flat[place]))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(arrays, partial, metadata={"stride_in_1x1": str(config.stride_in_1x1)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file, by name."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no weights file {path}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}.") from error
    if path.suffix not in (".pth", ".pt"):
        raise ValueError(f"Weights are .safetensors, .pth or .pt files, got {path}.")
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} needs PyTorch (pip install 'rmgl_jax[torch]'); .safetensors files do not."
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise errors of many kinds
        raise ValueError(f"{path} is not a whole torch file that holds only tensors.") from error
    if not isinstance(content, Mapping) or not all(map(torch.is_tensor, content.values())):
        raise ValueError(f"{path} must hold a flat dictionary of tensors (a model's state_dict).")
    return {name: tensor.float().numpy() for name, tensor in content.items()}


def _flatten(variables: Variables, config: ModelConfig) -> dict[tuple[str, ...], Any]:
    """The leaves of `variables` by their paths, all that `config` asks for among them."""
    flat = traverse_util.flatten_dict(dict(variables))
    for leaf in _leaves(config).values():
        for place in _places(leaf, config):
            if place not in flat:
                raise ValueError(
                    f"The variables are not those of the configuration: no {'/'.join(place)}."
                )
    return flat


def _from_torch(value: np.ndarray) -> np.ndarray:
    """A float32 array with a convolution's axes as HWIO rather than OIHW."""
    value = value.astype(np.float32)
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else tuple(shape)


def _to_torch(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)


def _stages(config: ModelConfig) -> tuple[str, ...]:
    return STAGES[1 : STAGES.index(config.last_stage) + 1]


def _owners(stage: str, config: ModelConfig) -> list[str]:
    """The modules that are copies of a stage: one, or one a branch."""
    names = [stage_name(granularity, stage) for granularity in config.granularities]
    return names[:1] if stage in SHARED_STAGES else names


def _places(leaf: _Leaf, config: ModelConfig) -> list[tuple[str, ...]]:
    return [(leaf.collection, "backbone", m, *leaf.path) for m in _owners(leaf.stage, config)]


def _leaves(config: ModelConfig) -> dict[str, _Leaf]:
    """Every array of a ResNet file, by its torch name."""
    leaves = {"conv1.weight": _Leaf("params", "stem", ("conv", "kernel"))}

    def add_norm(torch_name: str, stage: str, *path: str) -> None:
        for suffix, (collection, leaf) in _NORM_LEAVES.items():
            leaves[f"{torch_name}.{suffix}"] = _Leaf(collection, stage, (*path, leaf))

    add_norm("bn1", "stem", "bn")
    for layer, stage in enumerate(_stages(config)[1:], start=1):
        for block in range(config.depth[layer - 1]):
            pairs = [(f"conv{i}", f"bn{i}", str(i)) for i in (1, 2, 3)]
            if block == 0:
                pairs.append(("downsample.0", "downsample.1", "_shortcut"))
            for conv, norm, suffix in pairs:
                prefix, module = f"layer{layer}.{block}", f"block{block + 1}"
                kernel = (module, f"conv{suffix}", "kernel")
                leaves[f"{prefix}.{conv}.weight"] = _Leaf("params", stage, kernel)
                add_norm(f"{prefix}.{norm}", stage, module, f"bn{suffix}")
    return leaves
