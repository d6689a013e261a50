"""Writes a network as a serialized StableHLO program, for any batch size and several platforms.

`jax.export.deserialize(data).call(images)` runs it in another process, without this package.
"""

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from data_prep.errors import MissingPackageError
from rmgl_jax.config import ModelConfig
from rmgl_jax.evaluation.embedding import embed_batch
from rmgl_jax.models.folding import fold_batch_norm

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that a program runs on."""


def export_program(
    config: ModelConfig, variables: Mapping[str, Any], *, flip: bool = True
) -> export.Exported:
    """Exports `embed_batch` with its weights: uint8 `[B, H, W, 3] -> [B, E]`, for any B.

    The program has XLA's plain operations only, not those of `rmgl_jax.cpu`.

    Args:
        config: configuration of the model.
        variables: `params` and `batch_stats` of the model.
        flip: Average each embedding with that of the mirrored image.
    """
    # Constants of the program belong to no device.
    folded = fold_batch_norm(variables)
    # The function without its `jit`, whose cache may hold the traced kernels of `rmgl_jax.cpu`.
    embed = inspect.unwrap(embed_batch)

    def program(images: jax.Array) -> jax.Array:
        return embed(config, folded, images, flip)

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *config.image_size, 3), jnp.uint8)
    with _plain_operations(), _no_directories():
        return export.export(jax.jit(program), platforms=PLATFORMS)(images)


def serialize(program: export.Exported) -> bytes:
    """Serializes a program.

    Raises:
        MissingPackageError: the package flatbuffers is not installed.
    """
    with _flatbuffers():
        return bytes(program.serialize())


def deserialize(data: bytes) -> export.Exported:
    """Reads a serialized program: `deserialize(data).call(images)`.

    Raises:
        MissingPackageError: the package flatbuffers is not installed.
    """
    with _flatbuffers():
        return export.deserialize(bytearray(data))


@contextmanager
def _flatbuffers() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(
            "StableHLO files need the package flatbuffers: pip install 'rmgl_jax[export]'."
        ) from error


@contextmanager
def _plain_operations() -> Iterator[None]:
    """Traces without the kernels for CPUs; see `rmgl_jax.cpu.enabled`."""
    name = "RMGL_CPU_KERNELS"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def _no_directories() -> Iterator[None]:
    """Keeps the directories of this machine out of the source locations in the program."""
    name = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, name)
    jax.config.update(name, ".*/")
    try:
        yield
    finally:
        jax.config.update(name, before)
