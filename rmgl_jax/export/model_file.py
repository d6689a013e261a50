"""Trained models, and model files: one `.safetensors` file with weights and all settings.

A model file holds `params` and `batch_stats` as float32 arrays under slash-joined names, such as
`params/backbone/stem/conv/kernel`, and these strings as metadata::

    format_version    version of this layout
    package_version   version of rmgl_jax that wrote the file
    config            configuration of the run, as JSON
    preprocessing     image size, mean, standard deviation and decoding, as JSON
    trained_on        dataset of the training
    step              training step of the weights
    digest            SHA-256 of the weights
    projection        of the embedding, as JSON: origin, default width and SHA-256; optional, with
                      the arrays `projection/mean` and `projection/components`
    calibration       thresholds for "same person?", as JSON; optional
    metadata_digest   SHA-256 of the other metadata
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from data_prep.errors import InputError, MissingFileError, WriteError
from data_prep.files import expand, write_bytes
from data_prep.json_text import parse_json
from rmgl_jax import __version__
from rmgl_jax.config import ExperimentConfig, ModelConfig
from rmgl_jax.data.images import DECODING
from rmgl_jax.data.normalization import MEAN, STD
from rmgl_jax.devices import data_mesh
from rmgl_jax.evaluation.calibration import Calibration
from rmgl_jax.evaluation.embedding import embedding_width, inference_variables
from rmgl_jax.evaluation.projection import (
    PROJECTION_ARRAYS,
    Projection,
    projection_from_file,
    projection_to_file,
)
from rmgl_jax.export.hub import resolve
from rmgl_jax.export.run_checkpoint import read_checkpoint
from rmgl_jax.export.weights import (
    check_finite,
    check_layout,
    from_arrays,
    to_arrays,
    weights_digest,
)
from rmgl_jax.training.run_directory import config_from_json, config_to_json

FORMAT_VERSION = "1"
"""Version of the layout that is written, and the only one that is read."""
SUFFIX = ".safetensors"
"""Suffix of a model file."""


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model with the configuration of its run."""

    config: ExperimentConfig
    """Configuration of the run."""
    variables: dict[str, Any]
    """`params` and `batch_stats`, whole on every device."""
    step: int
    """Training step of the variables."""
    digest: str
    """SHA-256 of the variables, the same from a checkpoint and from a model file."""
    projection: Projection | None = None
    """Projection of the embedding to fewer dimensions."""
    calibration: Calibration | None = None
    """Score thresholds for "same person?"."""

    @cached_property
    def folded(self) -> dict[str, Any]:
        """The variables for `embed_batch`, computed once; see `inference_variables`."""
        return inference_variables(self.config.model, self.variables)

    @property
    def trained_on(self) -> str:
        """Name of the dataset of the training."""
        return self.config.dataset

    @property
    def default_dim(self) -> int | None:
        """Width of the embeddings of galleries and thresholds; None is the whole embedding."""
        return None if self.projection is None else self.projection.default_dim


def load_model(
    path: str | os.PathLike[str], step: int | None = None, best: bool = False
) -> TrainedModel:
    """Loads a model from a run directory, a model file, a model folder or the Hugging Face hub.

    Run directories are only read, which is safe while training is running.

    Args:
        path: run directory, `.safetensors` file of `save_model`, folder of `save_model_folder`, or
            "ORGANIZATION/NAME" on the hub if there is no such path, or the address of its page;
            see `hub.resolve`.
        step: training step of the checkpoint to load from a run directory; by default the latest
            undamaged one.
        best: Load the checkpoint with the greatest mAP among those that were evaluated.

    Raises:
        MissingFileError: there is no such file or run directory, or it has no checkpoint yet.
        InputError: the model file is damaged, of another format or does not fit its configuration;
            or `step` and `best` exclude each other or do not apply.
        CheckpointError: there is no checkpoint of `step`, or it is damaged.
        MissingPackageError: the path names a model on the hub, and huggingface_hub is missing.
    """
    path = resolve(path)
    if path.suffix == SUFFIX and not path.is_dir():
        if best or step is not None:
            raise InputError(f"{path} holds one model: step and best apply to run directories.")
        return _read_model_file(path)
    if path.is_file():
        raise InputError(f"{path} is neither a run directory nor a {SUFFIX} file.")
    config, state = read_checkpoint(path, step, best)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    return TrainedModel(config, variables, int(state.step), weights_digest(to_arrays(variables)))


def save_model(model: TrainedModel, path: str | os.PathLike[str]) -> None:
    """Writes a model to a `.safetensors` file, completely or not at all.

    Args:
        model: the model, as `load_model` returns it.
        path: file to write; replaced if it exists.

    Raises:
        InputError: `path` does not end in `.safetensors`, or the variables do not fit the
            configuration or are not finite.
        WriteError: the file cannot be written.
    """
    path = expand(path)
    check_model_suffix(path)
    arrays = to_arrays(model.variables)
    layout = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    check_layout(f"The model for {path}", layout, model.config.model)
    check_finite(f"The model for {path}", arrays)
    metadata = {
        "format_version": FORMAT_VERSION,
        "package_version": __version__,
        "config": json.dumps(config_to_json(model.config)),
        "preprocessing": _preprocessing(model.config.model),
        "trained_on": model.trained_on,
        "step": str(model.step),
        "digest": weights_digest(arrays),
    }
    if model.projection is not None:
        added, metadata["projection"] = projection_to_file(model.projection)
        check_finite(f"The model for {path}", added)
        arrays |= added
    if model.calibration is not None:
        metadata["calibration"] = model.calibration.to_json()
    metadata["metadata_digest"] = _metadata_digest(metadata)
    try:
        write_bytes(path, save(arrays, metadata))
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}.") from error


def check_model_suffix(path: Path) -> None:
    """Checks the name of a model file that is to be written.

    Raises:
        InputError: it does not end in `.safetensors`.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"A model file must end in {SUFFIX}, got {path}.")


def _read_model_file(path: Path) -> TrainedModel:
    if not path.is_file():
        raise MissingFileError(f"There is no model file {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            config, step = _read_metadata(path, metadata)
            others = PROJECTION_ARRAYS if "projection" in metadata else ()
            names = [name for name in file.keys() if name not in others]  # noqa: SIM118
            slices = {name: file.get_slice(name) for name in names}
            layout = {
                # "F32" is float32; other types are reported as the file names them.
                name: (part.get_dtype().replace("F32", "float32"), tuple(part.get_shape()))
                for name, part in slices.items()
            }
            check_layout(str(path), layout, config.model)
            arrays = {name: file.get_tensor(name) for name in slices}
            projection = calibration = None
            if "projection" in metadata:
                projection = projection_from_file(
                    str(path),
                    file.get_tensor,
                    metadata["projection"],
                    embedding_width(config.model),
                )
            if "calibration" in metadata:
                calibration = Calibration.from_json(metadata["calibration"])
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a complete {SUFFIX} file: {error}.") from error
    check_finite(str(path), arrays)
    if (digest := weights_digest(arrays)) != metadata["digest"]:
        raise InputError(
            f"{path} is damaged: the weights have the digest {digest}, but were saved with "
            f"{metadata['digest']}."
        )
    replicated = NamedSharding(data_mesh(), PartitionSpec())
    variables = jax.device_put(from_arrays(arrays), replicated)
    return TrainedModel(config, variables, step, digest, projection, calibration)


def _read_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[ExperimentConfig, int]:
    """Checks the metadata of a model file and returns configuration and step."""
    version = metadata.get("format_version")
    if version is None:
        raise InputError(f"{path} is not a model file of rmgl_jax: it has no format_version.")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}; this version of rmgl_jax reads {FORMAT_VERSION}."
        )
    required = {"package_version", "config", "preprocessing", "trained_on", "step", "digest"}
    if missing := sorted((required | {"metadata_digest"}) - metadata.keys()):
        raise InputError(f"{path} lacks the metadata {', '.join(missing)}.")
    if (digest := _metadata_digest(metadata)) != metadata["metadata_digest"]:
        raise InputError(
            f"{path} is damaged: the metadata have the digest {digest}, but were saved with "
            f"{metadata['metadata_digest']}."
        )
    try:
        config, step = config_from_json(parse_json(metadata["config"])), int(metadata["step"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} has no configuration of this version (it was written by rmgl_jax "
            f"{metadata['package_version']}): {error!r}."
        ) from error
    if metadata["preprocessing"] != _preprocessing(config.model):
        raise InputError(
            f"{path} was trained with the preprocessing {metadata['preprocessing']}, but this "
            f"version has {_preprocessing(config.model)}."
        )
    return config, step


def _preprocessing(config: ModelConfig) -> str:
    height, width = config.image_size
    return json.dumps(
        {"image_size": [height, width], "mean": MEAN, "std": STD, "decoding": DECODING}
    )


def _metadata_digest(metadata: Mapping[str, str]) -> str:
    signed = {name: text for name, text in metadata.items() if name != "metadata_digest"}
    return hashlib.sha256(json.dumps(signed, sort_keys=True).encode()).hexdigest()
