"""Embeddings of person crops in files or in memory, of any number and size."""

import os
import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.console import Console

from data_prep.errors import InputError, MissingFileError
from data_prep.images import FORMATS, read_image
from data_prep.workers import cores
from rmgl_jax.data.images import open_image, to_pixels
from rmgl_jax.evaluation.embedding import embed_rows
from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.runtime import enable_compilation_cache

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray
"""A path, a Pillow image, or a uint8 array [H, W, 3] in RGB order."""

# Pillow decodes in place, and the same image may be given more than once.
_LOADING = threading.Lock()


@dataclass(frozen=True, eq=False)
class Embedder:
    """Computes embeddings of images with a trained model: `Embedder(model)(images)`.

    Images are decoded and resized as in the evaluation, so that embeddings equal those of the
    evaluation bit for bit with the same batch size and devices.

    Raises:
        InputError: `batch_size` is less than 1.
    """

    model: TrainedModel
    """The model, as `load_model` returns it."""
    batch_size: int = 64
    """Images embedded at once, over all devices; rounded up to a multiple of their number."""
    flip: bool = True
    """Average each embedding with that of the mirrored image."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size}.")
        enable_compilation_cache()

    def __call__(
        self, images: Sequence[ImageLike] | np.ndarray, progress: bool = False
    ) -> np.ndarray:
        """Computes the embeddings of images of any size.

        Images are read batch by batch while the device computes the batch before: memory does not
        grow with their number, apart from the result.

        Args:
            images: M paths, Pillow images or uint8 arrays [H, W, 3] (RGB), also mixed; or one uint8
                array [M, H, W, 3].
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
        config = self.model.config.model
        with ThreadPoolExecutor(cores()) as pool:

            def read(rows: range) -> np.ndarray:
                items = [images[row] for row in rows]
                return _read_batch(pool, items, rows, config.image_size)

            return embed_rows(
                config,
                self.model.variables,
                read,
                len(images),
                batch_size=self.batch_size,
                flip=self.flip,
                console=Console(stderr=True) if progress else None,
            )


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
    pool: ThreadPoolExecutor, items: Sequence[ImageLike], rows: range, size: tuple[int, int]
) -> np.ndarray:
    """Reads images of the given indices as uint8 [len(rows), H, W, 3]."""
    batch = np.empty((len(rows), *size, 3), np.uint8)
    with warnings.catch_warnings():
        # Broken metadata is harmless. Filters belong to the process, not to a thread, so that they
        # are set once for all threads of the pool.
        warnings.simplefilter("ignore")
        futures = [
            pool.submit(_to_pixels, item, index, size)
            for item, index in zip(items, rows, strict=True)
        ]
        # All end before the filters are reset, also after an error.
        wait(futures)
    for pixels, future in zip(batch, futures, strict=True):
        pixels[:] = future.result()
    return batch


def _to_pixels(item: ImageLike, index: int, size: tuple[int, int]) -> np.ndarray:
    """Converts images[index] to uint8 [H, W, 3] of the model's size."""
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8:
            raise TypeError(f"images[{index}] must be uint8, got {item.dtype}.")
        if item.ndim != 3 or item.shape[2] != 3 or 0 in item.shape:
            raise ValueError(f"images[{index}] must be [H, W, 3], got {item.shape}.")
        return to_pixels(Image.fromarray(np.ascontiguousarray(item)), size)
    if isinstance(item, Image.Image):
        name = f"images[{index}]"
    elif isinstance(item, (str, os.PathLike)):
        name = os.fspath(item)
    else:
        raise TypeError(
            f"images[{index}] must be a path, a Pillow image or a uint8 array, got "
            f"{type(item).__name__}."
        )
    try:
        if isinstance(item, Image.Image):
            with _LOADING:
                item.load()
            return to_pixels(item, size)
        with open_image(read_image(Path(item))) as image:
            return to_pixels(image, size)
    except FileNotFoundError as error:
        raise MissingFileError(f"There is no image {name}.") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image: it is none of {', '.join(FORMATS)}.") from error
    except InputError:
        raise
    # A decoder fed with noise may raise anything: struct.error, SyntaxError, IndexError ...
    except Exception as error:
        raise InputError(f"{name} is not a readable image: {error}.") from error
