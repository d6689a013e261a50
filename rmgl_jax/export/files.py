"""Writes ONNX and StableHLO files, each checked against JAX before it gets its name."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.errors import InputError, WriteError
from data_prep.files import expand, replacing
from rmgl_jax import __version__
from rmgl_jax.export import stablehlo
from rmgl_jax.export.check import Agreement, compare, onnx_runner
from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.export.onnx import ImageInput, onnx_model


def export_onnx(
    model: TrainedModel,
    path: str | os.PathLike[str],
    *,
    flip: bool = True,
    image_input: ImageInput = "uint8",
) -> Agreement:
    """Writes an ONNX file with the input `images` and the output `embedding`, `[B, E]`.

    The embeddings have unit length. The graph computes in float32. The file is checked by ONNX
    Runtime, or by ONNX's own evaluator where that is not installed.

    Args:
        model: the model, as `load_model` returns it.
        path: file to write; replaced if it exists.
        flip: Average each embedding with that of the mirrored image, in the graph.
        image_input: "uint8" or "float" takes `[B, H, W, 3]` with RGB values 0..255, "normalized"
            takes `[B, 3, H, W]`, normalized by ImageNet's mean and standard deviation.

    Returns:
        The differences from JAX.

    Raises:
        ExportError: the file does not compute what JAX computes; it is not kept.
        InputError: the weights are too large for an ONNX file, or `path` is a directory.
        MissingPackageError: the package onnx is not installed.
        WriteError: the file cannot be written.
    """
    config = replace(model.config.model, dtype="float32")
    metadata = _metadata(model) | {"flip": str(flip), "input": image_input}
    proto = onnx_model(
        config, model.variables, flip=flip, image_input=image_input, metadata=metadata
    )
    with _writing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString())
        engine, run = onnx_runner(temporary, image_input)
        return compare(config, model.variables, run, engine=engine, flip=flip)


def export_stablehlo(
    model: TrainedModel, path: str | os.PathLike[str], *, flip: bool = True
) -> Agreement:
    """Writes a StableHLO program for CPUs, GPUs and TPUs: uint8 `[B, H, W, 3] -> [B, E]`.

    `jax.export.deserialize` reads the file. It is checked on the default device of this process.

    Args:
        model: the model, as `load_model` returns it.
        path: file to write; replaced if it exists.
        flip: Average each embedding with that of the mirrored image, in the program.

    Returns:
        The differences from JAX.

    Raises:
        ExportError: the program does not compute what JAX computes; it is not kept.
        InputError: `path` is a directory.
        MissingPackageError: the package flatbuffers is not installed.
        WriteError: the file cannot be written.
    """
    config = model.config.model
    data = stablehlo.serialize(stablehlo.export_program(config, model.variables, flip=flip))
    with _writing(path) as temporary:
        temporary.write_bytes(data)
        program = stablehlo.deserialize(temporary.read_bytes())

        def run(images: np.ndarray) -> np.ndarray:
            return np.asarray(program.call(images))

        return compare(config, model.variables, run, engine="StableHLO", flip=flip)


@contextmanager
def _writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path that is renamed to `path` after the block, unless it fails."""
    path = expand(path)
    if path.is_dir():
        raise InputError(f"A file must be written, but {path} is a directory.")
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise WriteError(f"{path} cannot be written: {error.strerror or error}.") from error


def _metadata(model: TrainedModel) -> dict[str, str]:
    return {
        "package_version": __version__,
        "trained_on": model.trained_on,
        "step": str(model.step),
        "digest": model.digest,
    }
