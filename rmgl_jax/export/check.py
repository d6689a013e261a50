"""Compares an exported file's outputs with those of JAX."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.errors import ExpectedError, MissingPackageError
from rmgl_jax.config import ModelConfig
from rmgl_jax.data.normalization import normalize
from rmgl_jax.evaluation.embedding import embed_batch
from rmgl_jax.export.engines import open_onnxruntime
from rmgl_jax.export.onnx import INPUT, ImageInput
from rmgl_jax.export.onnx_graph import import_onnx
from rmgl_jax.models.folding import fold_batch_norm

TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-2}
"""Largest accepted difference of two values of unit embeddings, by `ModelConfig.dtype`."""


class ExportError(ExpectedError):
    """An exported file does not compute what JAX computes."""


@dataclass(frozen=True)
class Agreement:
    """Differences between the embeddings of two engines."""

    engine: str
    """Name of the engine that ran the file."""
    images: int
    """Images that were compared."""
    difference: float
    """Largest absolute difference of two values."""
    cosine: float
    """Smallest cosine similarity of two embeddings of one image."""

    def __str__(self) -> str:
        return (
            f"{self.engine} agrees with JAX on {self.images} images: largest difference "
            f"{self.difference:.1e}, smallest cosine similarity {self.cosine:.7f}"
        )


def check_images(config: ModelConfig, count: int = 3) -> np.ndarray:
    """Makes images of colored blocks and noise, uint8 `[B, H, W, 3]`; the same every time."""
    height, width = config.image_size
    random = np.random.default_rng(0)
    blocks = random.integers(0, 200, (count, -(-height // 16), -(-width // 16), 3))
    colors = blocks.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    return (colors + random.integers(0, 56, colors.shape)).astype(np.uint8)


def compare(
    config: ModelConfig,
    variables: Mapping[str, Any],
    run: Callable[[np.ndarray], np.ndarray],
    *,
    engine: str,
    flip: bool,
) -> Agreement:
    """Compares what `run` returns for `check_images` with `embed_batch`.

    Args:
        config: configuration of the model, with the arithmetic that the file has.
        variables: `params` and `batch_stats` of the model.
        run: maps uint8 images `[B, H, W, 3]` to unit embeddings `[B, E]`.
        engine: name of what runs the file.
        flip: Average each embedding with that of the mirrored image.

    Raises:
        ExportError: shapes differ, or values differ by more than `TOLERANCE`.
    """
    if config.dtype == "bfloat16":
        # In bfloat16 folding alone may move a stripe of ABP by a row. So it is checked in float32,
        # and the file is compared with the folded network.
        exact, folded = replace(config, dtype="float32"), fold_batch_norm(variables)

        def run_folded(images: np.ndarray) -> np.ndarray:
            return np.asarray(embed_batch(exact, folded, jnp.asarray(images), flip))

        # GPUs and TPUs would round the products of float32 to fewer bits.
        with jax.default_matmul_precision("highest"):
            compare(exact, variables, run_folded, engine="The folded network", flip=flip)
        variables = folded
    images = check_images(config)
    # In float32 this is the network as it was trained, so that the folding is checked as well.
    expected = np.asarray(embed_batch(config, variables, jnp.asarray(images), flip))
    found = np.asarray(run(images))
    if found.shape != expected.shape:
        raise ExportError(f"{engine} gives the shape {found.shape}, but JAX {expected.shape}.")
    agreement = Agreement(
        engine=engine,
        images=len(images),
        difference=float(np.abs(found - expected).max()),
        cosine=float((found * expected).sum(axis=1).min()),
    )
    # Written so that NaN fails.
    if not agreement.difference <= (limit := TOLERANCE[config.dtype]):
        raise ExportError(
            f"{engine} differs from JAX by up to {agreement.difference:.2g} (at most {limit:g} is "
            f"accepted), with a smallest cosine similarity of {agreement.cosine:.6f}."
        )
    return agreement


def onnx_runner(
    path: Path, image_input: ImageInput
) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Loads an ONNX file in ONNX Runtime, or in ONNX's own slow evaluator without it.

    Returns:
        The name of the engine, and a function from uint8 images `[B, H, W, 3]` to the output.
    """

    def convert(images: np.ndarray) -> np.ndarray:
        if image_input == "uint8":
            return images
        if image_input == "float":
            return images.astype(np.float32)
        return np.asarray(normalize(images)).transpose(0, 3, 1, 2)

    try:
        run = open_onnxruntime(path.read_bytes())
    except MissingPackageError:
        import_onnx()
        reference = importlib.import_module("onnx.reference").ReferenceEvaluator(str(path))
        return "ONNX's reference evaluator", lambda images: np.asarray(
            reference.run(None, {INPUT: convert(images)})[0]
        )
    return f"ONNX Runtime {version('onnxruntime')}", lambda images: run(convert(images))
