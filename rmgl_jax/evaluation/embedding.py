"""Embeddings of images: on all devices, image and mirror averaged, of unit length."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console
from rich.progress import track

from rmgl_jax.config import ModelConfig
from rmgl_jax.data.augment import normalize
from rmgl_jax.devices import AXIS, data_mesh
from rmgl_jax.models.rmgl import RMGL


@partial(jax.jit, static_argnames=("config", "flip"))
def embed_batch(
    config: ModelConfig, variables: Mapping[str, Any], images: jax.Array, flip: bool = True
) -> jax.Array:
    """Unit embeddings of uint8 images, `[B, H, W, 3] -> [B, E]`.

    With `flip` an embedding is the mean of the image's own and its mirror's (IV-A), before it is
    scaled to unit length.
    """

    def embedding(images: jax.Array) -> jax.Array:
        return RMGL(config).apply(variables, images, train=False).embedding

    images = normalize(images)
    total = embedding(images)
    if flip:
        total += embedding(images[:, :, ::-1])
    # An all-zero embedding (a broken network) stays zero instead of becoming NaN.
    return total / jnp.maximum(jnp.linalg.norm(total, axis=-1, keepdims=True), 1e-12)


@partial(jax.jit, static_argnames="sharding")
def _gather(embeddings: jax.Array, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(embeddings, sharding)


def embed(
    config: ModelConfig,
    variables: Mapping[str, Any],
    images: np.ndarray,
    *,
    batch_size: int = 64,
    flip: bool = True,
    console: Console | None = None,
    description: str = "embedding",
) -> np.ndarray:
    """Unit embeddings of any number of images, `uint8 [M, H, W, 3] -> float32 [M, E]`.

    Batches have one fixed size, so that one program is compiled; the last one is filled up and
    what the filling gives is dropped. On several processes each embeds its part of every batch,
    and all get the whole result.

    Args:
        config: of the model.
        variables: `params` and `batch_stats`.
        images: an array or a memory map, such as `Split.images`.
        batch_size: over all devices; rounded up to a multiple of their number.
        flip: see `embed_batch`.
        console: shows a progress bar on it.
        description: before the bar.

    Raises:
        ValueError: if the images are not uint8 `[M, H, W, 3]` of the model's size.
    """
    if images.ndim != 4 or images.shape[1:] != (*config.image_size, 3):
        raise ValueError(
            f"embed wants images [M, {config.image_size[0]}, {config.image_size[1]}, 3], "
            f"got {images.shape}."
        )
    if images.dtype != np.uint8:
        raise ValueError(f"embed wants uint8 images (0..255, RGB), got {images.dtype}.")
    devices = jax.device_count()
    batch_size = -(-batch_size // devices) * devices
    mesh = data_mesh()
    rows = NamedSharding(mesh, PartitionSpec(AXIS))
    everywhere = NamedSharding(mesh, PartitionSpec())
    variables = jax.device_put(variables, everywhere)

    mine = batch_size // jax.process_count()
    offset = mine * jax.process_index()
    result = np.empty((len(images), 0), np.float32)
    pending: list[tuple[int, jax.Array]] = []

    def collect(start: int, embeddings: jax.Array) -> None:
        nonlocal result
        if result.shape[1] == 0:
            result = np.empty((len(images), embeddings.shape[1]), np.float32)
        end = min(start + batch_size, len(images))
        result[start:end] = np.asarray(embeddings)[: end - start]

    starts = range(0, len(images), batch_size)
    if console is not None:
        starts = track(starts, description=description, console=console, transient=True)
    for start in starts:
        part = np.zeros((mine, *images.shape[1:]), np.uint8)
        own = images[start + offset : min(start + offset + mine, len(images))]
        part[: len(own)] = own
        batch = jax.make_array_from_process_local_data(rows, part)
        embeddings = embed_batch(config, variables, batch, flip)
        pending.append((start, _gather(embeddings, everywhere)))
        # One batch is computed while the next is read.
        if len(pending) > 1:
            collect(*pending.pop(0))
    for item in pending:
        collect(*item)
    return result
