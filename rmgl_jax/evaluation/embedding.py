"""Embeddings of images: computed on all devices, averaged over image and mirror, of unit length."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from data_prep.errors import InputError
from rmgl_jax.config import ModelConfig
from rmgl_jax.data.augment import normalize
from rmgl_jax.data.pixels import Images
from rmgl_jax.data.split import Split
from rmgl_jax.devices import AXIS, data_mesh
from rmgl_jax.models.folding import fold_batch_norm
from rmgl_jax.models.rmgl import RMGL, feature_layout


@partial(jax.jit, static_argnames=("config", "flip"))
def embed_batch(
    config: ModelConfig, variables: Mapping[str, Any], images: jax.Array, flip: bool = True
) -> jax.Array:
    """Embeds uint8 images `[B, H, W, 3]` at unit length, `[B, E]`.

    Args:
        config: configuration of the model.
        variables: `params` and `batch_stats` of the model; or, which is faster, what
            `inference_variables` or `fold_batch_norm` makes of them.
        images: of any size that the model takes.
        flip: Average each embedding with that of the mirrored image (IV-A) before scaling it to
            unit length.
    """
    copies = 2 if flip else 1
    if flip:
        # An image and its mirror are neighbors, so that both are on the device of the image.
        images = jnp.stack([images, images[:, :, ::-1]], axis=1)
        images = images.reshape(-1, *images.shape[2:])
    network = RMGL(config, folded="batch_stats" not in variables)
    features = network.apply(variables, normalize(images), method="part_features")
    total = jnp.sum(cast(jax.Array, features).reshape(-1, copies, embedding_width(config)), axis=1)
    # An all-zero embedding (a broken network) stays zero instead of becoming NaN.
    return total / jnp.maximum(jnp.linalg.norm(total, axis=-1, keepdims=True), 1e-12)


def inference_variables(config: ModelConfig, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Folds batch norm into the kernels and places them on all devices, for `embed_batch`.

    Embeddings differ by rounding from those of `RMGL(config)` with `variables`: at float32 no value
    of a unit embedding by more than 1e-5.

    Args:
        config: configuration of the model.
        variables: `params` and `batch_stats` of the model.
    """
    replicated = NamedSharding(data_mesh(), PartitionSpec())

    def place(path: tuple[Any, ...], array: np.ndarray) -> jax.Array:
        # Kernels in the type of the arithmetic: otherwise every call would convert them.
        in_backbone = path[1].key == "backbone" and path[-1].key == "kernel"
        dtype = jnp.dtype(config.dtype) if in_backbone else np.float32
        return jax.make_array_from_process_local_data(replicated, array.astype(dtype))

    return jax.tree.map_with_path(place, fold_batch_norm(variables))


@partial(jax.jit, static_argnames="sharding")
def _gather(embeddings: jax.Array, sharding: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(embeddings, sharding)


def embed(
    config: ModelConfig,
    variables: Mapping[str, Any],
    images: Images,
    *,
    batch_size: int = 64,
    flip: bool = True,
    console: Console | None = None,
    description: str = "embedding",
) -> np.ndarray:
    """Embeds any number of images at unit length, `uint8 [M, H, W, 3] -> float32 [M, E]`.

    Args:
        config: configuration of the model.
        variables: `params` and `batch_stats` of the model.
        images: an array, or `Split.images`.
        batch_size: images embedded at once, see `embed_rows`.
        flip: Average each embedding with that of the mirrored image.
        console: if given and a terminal, shows a progress bar.
        description: label of the progress bar.

    Raises:
        ValueError: the images are not uint8 `[M, H, W, 3]` of the model's size.
    """
    if images.ndim != 4 or images.shape[1:] != (*config.image_size, 3):
        height, width = config.image_size
        raise ValueError(f"images must have shape [M, {height}, {width}, 3], got {images.shape}.")
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 (0..255, RGB), got {images.dtype}.")
    return embed_rows(
        config,
        variables,
        lambda rows: images[rows.start : rows.stop],
        len(images),
        batch_size=batch_size,
        flip=flip,
        console=console,
        description=description,
    )


def embed_split(
    config: ModelConfig,
    variables: Mapping[str, Any],
    split: Split,
    *,
    batch_size: int = 64,
    flip: bool = True,
    console: Console | None = None,
) -> np.ndarray:
    """Embeds the M images of a split, float32 [M, E]; see `embed`."""
    return embed(
        config,
        variables,
        split.images,
        batch_size=batch_size,
        flip=flip,
        console=console,
        description=f"embedding {split.split}",
    )


def embed_rows(
    config: ModelConfig,
    variables: Mapping[str, Any],
    read: Callable[[range], np.ndarray],
    count: int,
    *,
    batch_size: int = 64,
    flip: bool = True,
    console: Console | None = None,
    description: str = "embedding",
) -> np.ndarray:
    """Embeds images that are read batch by batch, while the device computes the batch before.

    All batches have one size, so that one program is compiled: the last batch is padded, and the
    embeddings of the padding are dropped. Each of several processes reads and embeds its part of
    every batch, and all processes return the whole result.

    Args:
        config: configuration of the model.
        variables: `params` and `batch_stats` of the model.
        read: returns images `rows`, uint8 [len(rows), H, W, 3]; called in order, in a thread.
        count: M, the number of images.
        batch_size: images embedded at once, over all devices; rounded up to a multiple of their
            number.
        flip: Average each embedding with that of the mirrored image.
        console: if given and a terminal, shows a progress bar.
        description: label of the progress bar.

    Returns:
        Unit embeddings, float32 [M, E].
    """
    batch_size, local = split_batch(batch_size)
    starts = range(0, count, batch_size)

    def read_batch(start: int) -> np.ndarray:
        """Reads this process's part of a batch and pads it."""
        batch = np.zeros((local.stop - local.start, *config.image_size, 3), np.uint8)
        rows = range(min(start + local.start, count), min(start + local.stop, count))
        batch[: len(rows)] = read(rows)
        return batch

    result = np.empty((count, embedding_width(config)), np.float32)
    with progress_bar(console) as progress:
        task = progress.add_task(description, total=count)
        folded = inference_variables(config, variables)
        batches = embed_batches(config, folded, map(read_batch, starts), flip)
        for start, embeddings in zip(starts, batches, strict=True):
            stop = min(start + batch_size, count)
            result[start:stop] = embeddings[: stop - start]
            progress.update(task, completed=stop)
    return result


def embed_batches(
    config: ModelConfig,
    folded: Mapping[str, Any],
    batches: Iterable[np.ndarray],
    flip: bool = True,
) -> Iterator[np.ndarray]:
    """Embeds batches of one size, each of which is read while the device computes the one before.

    Args:
        config: configuration of the model.
        folded: variables of the model, as `inference_variables` returns them.
        batches: uint8 [B, H, W, 3], or this process's part of it; see `split_batch`. Iterated in a
            thread.
        flip: Average each embedding with that of the mirrored image.

    Yields:
        Unit embeddings of each batch, float32 [B, E].
    """
    mesh = data_mesh()
    sharded = NamedSharding(mesh, PartitionSpec(AXIS))
    replicated = NamedSharding(mesh, PartitionSpec())
    pending: jax.Array | None = None
    for part in read_ahead(batches):
        batch = jax.make_array_from_process_local_data(sharded, part)
        embeddings = _gather(embed_batch(config, folded, batch, flip), replicated)
        # The result is copied while the device computes the next batch.
        if pending is not None:
            yield np.asarray(pending)
        pending = embeddings
    if pending is not None:
        yield np.asarray(pending)


def split_batch(batch_size: int) -> tuple[int, slice]:
    """Rounds a batch size up to a multiple of the devices; returns it and this process's part.

    Raises:
        InputError: it is less than 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}.")
    devices = jax.device_count()
    batch_size = -(-batch_size // devices) * devices
    local_size = batch_size // jax.process_count()
    offset = local_size * jax.process_index()
    return batch_size, slice(offset, offset + local_size)


def embedding_width(config: ModelConfig) -> int:
    """Returns E, the width of the embeddings of a model."""
    return len(feature_layout(config)) * config.embed_dim


def read_ahead(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the batches in order, each while the next one is being read."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, iterator, None)
        while (current := following.result()) is not None:
            following = reader.submit(next, iterator, None)
            yield current


class _ImagesPerSecond(ProgressColumn):
    """Recent speed of a task whose unit is images."""

    def render(self, task: Task) -> Text:
        """Returns the speed, empty until it is known."""
        return Text(f"{task.speed:,.0f} images/s" if task.speed else "")


def progress_bar(console: Console | None) -> Progress:
    """Makes a progress bar of images with speed and remaining time; hidden unless on a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _ImagesPerSecond(),
        TimeRemainingColumn(),
    )
    hidden = console is None or not console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=hidden)
