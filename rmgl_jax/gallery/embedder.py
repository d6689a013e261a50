"""Embeddings of person crops in files or in memory, of any number and size."""

import hashlib
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby, islice
from numbers import Integral
from pathlib import Path
from typing import NamedTuple, TypeAlias, get_args

import numpy as np
from PIL import Image
from rich.console import Console

from data_prep.errors import ExpectedError, InputError
from data_prep.workers import cores
from rmgl_jax.config import Arithmetic, Engine
from rmgl_jax.data.images import to_pixels
from rmgl_jax.evaluation.embedding import (
    embed_batches,
    embedding_width,
    inference_variables,
    progress_bar,
    read_ahead,
    split_batch,
)
from rmgl_jax.evaluation.projection import Projection
from rmgl_jax.export.engines import check_engine, load_engine
from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.gallery.crops import Crop, cut, read_image
from rmgl_jax.runtime import enable_compilation_cache

ImageLike: TypeAlias = str | os.PathLike[str] | Crop | Image.Image | np.ndarray
"""A path, a crop, a Pillow image, or a uint8 array [H, W, 3] in RGB order."""

# Pillow decodes in place, and the same image may be given more than once.
_LOADING = threading.Lock()


@dataclass(frozen=True, eq=False)
class Embedder:
    """Computes embeddings of images with a trained model: `Embedder(model)(images)`.

    Images are decoded and resized as in the evaluation, and with the engine "jax" they go through
    its program, so that embeddings equal those of the evaluation bit for bit with the same batch
    size and devices. Those of other engines at float32 differ by rounding, no value by more than
    1e-4. `digest` does not depend on the engine.

    Raises:
        InputError: `engine` or `precision` is unknown, `batch_size` is no whole number from 1 on,
            the model has no projection, or none of so many dimensions, or the engine does not
            compute in `precision` on this processor.
        MissingPackageError: the package of the engine is not installed.
    """

    model: TrainedModel
    """The model, as `load_model` returns it."""
    batch_size: int = 64
    """Images embedded at once, over all devices; rounded up to a multiple of their number."""
    flip: bool = True
    """Average each embedding with that of the mirrored image."""
    dim: int | None = None
    """Width of the embeddings, by the projection of the model; None is the whole embedding."""
    engine: Engine = "jax"
    """Runs the network; "onnxruntime" and "openvino" run on the CPU, in one process."""
    precision: Arithmetic | None = None
    """Type of the arithmetic; None is that of the model with the engine "jax", else float32."""

    def __post_init__(self) -> None:
        for name, allowed in (("engine", Engine), ("precision", Arithmetic)):
            value = getattr(self, name)
            if value not in get_args(allowed) and (name, value) != ("precision", None):
                raise InputError(f"{name} must be one of {get_args(allowed)}, got {value!r}.")
        if not isinstance(self.batch_size, Integral) or self.batch_size < 1:
            raise InputError(f"batch_size must be a whole number from 1 on, got {self.batch_size}.")
        if self.dim is not None:
            self._projection.check_dim(self.dim)
        if self.engine != "jax":
            check_engine(self.engine, self.precision or "float32")
        enable_compilation_cache()

    @property
    def width(self) -> int:
        """E, the width of the embeddings."""
        return embedding_width(self.model.config.model) if self.dim is None else self.dim

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, and of the projection if `dim` is given.

        Embeddings can be compared if this, `flip` and `dim` are equal.
        """
        if self.dim is None:
            return self.model.digest
        both = f"{self.model.digest} {self._projection.digest}"
        return hashlib.sha256(both.encode()).hexdigest()

    @property
    def _projection(self) -> Projection:
        if self.model.projection is None:
            raise InputError(
                f"The model has no projection to {self.dim} dimensions; `rmgl compress` fits one."
            )
        return self.model.projection

    def __call__(
        self, images: Sequence[ImageLike] | np.ndarray, progress: bool = False
    ) -> np.ndarray:
        """Computes the embeddings of images of any size.

        Images are read batch by batch while the device computes the batch before: memory does not
        grow with their number, apart from the result.

        Args:
            images: M paths, crops, Pillow images or uint8 arrays [H, W, 3] (RGB), also mixed; or
                one uint8 array [M, H, W, 3].
            progress: Show a progress bar on standard error.

        Returns:
            Embeddings of unit length, float32 [M, E].

        Raises:
            MissingFileError: a path does not exist.
            InputError: a file or an image cannot be decoded.
            TypeError: `images` is not a sequence, or an image has another type.
            ValueError: an array has another shape.
        """
        _check_sequence(images)
        result = np.empty((len(images), self.width), np.float32)
        done = 0
        with progress_bar(Console(stderr=True) if progress else None) as bar:
            task = bar.add_task("embedding", total=len(images))
            # By index, because a sequence may make its images on demand.
            numbered = (images[row] for row in range(len(images)))
            for batch in self._stream(numbered, skip_bad=False, keep=False):
                result[done : done + len(batch.embeddings)] = batch.embeddings
                done += len(batch.embeddings)
                bar.update(task, completed=done)
        return result

    def stream(
        self, images: Iterable[ImageLike], skip_bad: bool = False
    ) -> Iterator["EmbeddedBatch"]:
        """Computes the embeddings of any number of images, batch by batch, in order.

        The next batch is read while the device computes the current one.

        Args:
            images: paths, crops, Pillow images or uint8 arrays [H, W, 3] (RGB), also mixed;
                iterated in a thread.
            skip_bad: Leave out images that cannot be read, and list them in their batch.

        Yields:
            Batches of at most `batch_size` images, rounded up to a multiple of the devices.

        Raises:
            MissingFileError: a path does not exist, without `skip_bad`.
            InputError: a file or an image cannot be decoded, without `skip_bad`.
            TypeError: an image has another type.
            ValueError: an array has another shape.
        """
        return self._stream(images, skip_bad, keep=True)

    def _stream(
        self, images: Iterable[ImageLike], skip_bad: bool, keep: bool
    ) -> Iterator["EmbeddedBatch"]:
        """Yields batches as `stream` does, without their images unless `keep` is true."""
        config = self.model.config.model
        batch_size, local = self._batch
        read: deque[tuple[int, list[ImageLike], list[BadImage]]] = deque()

        def read_batches() -> Iterator[np.ndarray]:
            numbered = enumerate(images)
            while items := list(islice(numbered, batch_size)):
                # All batches have one size, so that one program is compiled.
                pixels = np.zeros((batch_size, *config.image_size, 3), np.uint8)
                good, bad = _read_batch(pool, items, pixels, skip_bad)
                read.append((len(good), good if keep else [], bad))
                # Large images in memory must not wait until the batch is embedded.
                del items, good
                yield pixels[local]

        with ThreadPoolExecutor(cores()) as pool:
            for embeddings in self._embed(read_batches()):
                count, good, bad = read.popleft()
                found = embeddings[:count]
                if self.dim is not None:
                    found = self._projection(found, self.dim)
                yield EmbeddedBatch(good, found, bad)

    @property
    def _batch(self) -> tuple[int, slice]:
        """Images in a batch, and this process's part of it."""
        if self.engine == "jax":
            return split_batch(self.batch_size)
        return self.batch_size, slice(0, self.batch_size)

    @cached_property
    def _embed(self) -> Callable[[Iterable[np.ndarray]], Iterator[np.ndarray]]:
        """Maps batches to their embeddings, each of which is read during the one before."""
        model = self.model
        config = model.config.model
        if self.engine != "jax":
            run = load_engine(
                self.engine,
                config,
                model.variables,
                batch_size=self.batch_size,
                flip=self.flip,
                precision=self.precision or "float32",
            )
            return lambda batches: map(run, read_ahead(batches))
        folded = model.folded
        if self.precision is not None and self.precision != config.dtype:
            config = replace(config, dtype=self.precision)
            folded = inference_variables(config, model.variables)
        return lambda batches: embed_batches(config, folded, batches, self.flip)


class BadImage(NamedTuple):
    """An image that cannot be read."""

    image: ImageLike
    """The image, as it was given."""
    reason: str
    """A sentence that names the file and says what is wrong."""


class EmbeddedBatch(NamedTuple):
    """Consecutive images with their embeddings."""

    images: list[ImageLike]
    """The b images that were read, in order."""
    embeddings: np.ndarray
    """Embeddings of unit length, float32 [b, E]."""
    skipped: list[BadImage]
    """Images among them that cannot be read."""


def _check_sequence(images: Sequence[ImageLike] | np.ndarray) -> None:
    if isinstance(images, np.ndarray):
        # Arrays of paths have a type that is not numeric.
        if images.dtype.kind in "OU" and images.ndim == 1:
            return
        if images.dtype != np.uint8:
            raise TypeError(f"An array of images must be uint8, got {images.dtype}.")
        if images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"An array of images must be [M, H, W, 3], got {images.shape}.")
    elif isinstance(images, str) or not isinstance(images, Sequence):
        raise TypeError(
            "images must be a sequence of paths, Pillow images or arrays, or one array "
            f"[M, H, W, 3], got {type(images).__name__}."
        )


def _read_batch(
    pool: ThreadPoolExecutor,
    numbered: Sequence[tuple[int, ImageLike]],
    pixels: np.ndarray,
    skip_bad: bool,
) -> tuple[list[ImageLike], list[BadImage]]:
    """Reads images, with their indices, into the first rows of `pixels` [B, H, W, 3].

    Returns:
        The images that were read, and with `skip_bad` those that cannot be read.
    """
    height, width = pixels.shape[1:3]
    groups = [list(group) for _, group in groupby(numbered, _file)]
    with warnings.catch_warnings():
        # Broken metadata is harmless. Filters belong to the process, not to a thread, so that they
        # are set once for all threads of the pool.
        warnings.simplefilter("ignore")
        futures = [pool.submit(_read_group, group, (height, width)) for group in groups]
        # All end before the filters are reset, also after an error.
        wait(futures)
    good: list[ImageLike] = []
    bad: list[BadImage] = []
    results = chain.from_iterable(future.result() for future in futures)
    for (_, image), result in zip(numbered, results, strict=True):
        if not isinstance(result, ExpectedError):
            pixels[len(good)] = result
            good.append(image)
        elif skip_bad:
            bad.append(BadImage(image, str(result)))
        else:
            raise result
    return good, bad


def _file(numbered: tuple[int, ImageLike]) -> Path | int:
    """Returns the file of a box, which is decoded once for consecutive boxes in it."""
    index, item = numbered
    return item.path if isinstance(item, Crop) else index


def _read_group(
    numbered: Sequence[tuple[int, ImageLike]], size: tuple[int, int]
) -> list[np.ndarray | ExpectedError]:
    """Reads one image, or crops of one file."""
    first_index, first = numbered[0]
    crops = [item for _, item in numbered if isinstance(item, Crop)]
    if isinstance(first, (str, os.PathLike)):
        crops = [Crop(Path(first))]
    if not crops:
        try:
            return [_to_pixels(first, first_index, size)]
        except ExpectedError as error:
            return [error]
    try:
        image = read_image(crops[0].path)
    except ExpectedError as error:
        return [error] * len(crops)
    results: list[np.ndarray | ExpectedError] = []
    for crop in crops:
        try:
            results.append(to_pixels(cut(image, crop), size))
        except ExpectedError as error:
            results.append(error)
    return results


def _to_pixels(item: ImageLike, index: int, size: tuple[int, int]) -> np.ndarray:
    """Converts images[index], which is in memory, to uint8 [H, W, 3] of the model's size."""
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8:
            raise TypeError(f"images[{index}] must be uint8, got {item.dtype}.")
        if item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
            raise ValueError(f"images[{index}] must be [H, W, 3], got {item.shape}.")
        return to_pixels(Image.fromarray(np.ascontiguousarray(item)), size)
    if not isinstance(item, Image.Image):
        raise TypeError(
            f"images[{index}] must be a path, a crop, a Pillow image or a uint8 array, got "
            f"{type(item).__name__}."
        )
    try:
        with _LOADING:
            item.load()
        return to_pixels(item, size)
    # A decoder fed with noise may raise anything: struct.error, SyntaxError, IndexError ...
    except Exception as error:
        raise InputError(f"images[{index}] is not a readable image: {error}.") from error
