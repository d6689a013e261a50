"""Shorter embeddings: linear projection to fewer dimensions, and vectors of fewer bits."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from data_prep.errors import InputError
from data_prep.json_text import parse_json
from rmgl_jax.evaluation.distances import unit_rows

Precision: TypeAlias = Literal["float32", "float16", "int8"]
"""Type of stored embeddings."""
WHITENING = 0.5
"""Default of `fit_projection`, chosen on Market-1501; see docs/how_to/embeddings.md."""
_REGULARIZATION = 0.1  # Share of the mean variance within persons, added to each.


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear map of embeddings to fewer dimensions.

    The first dimensions are those of the largest variance, so that one projection serves every
    width: the embedding of width 128 is the start of that of width 256, scaled to unit length.
    """

    mean: np.ndarray
    """Subtracted from embeddings, float32 [E]."""
    components: np.ndarray
    """Directions in the order of their variance, float32 [E, largest width]."""
    fitted_on: str = ""
    """Dataset of the embeddings it was fitted on."""
    default_dim: int | None = None
    """Smallest width that loses at most 0.5 mAP, as `rmgl compress` measured it; None if none."""

    @property
    def largest_dim(self) -> int:
        """Greatest width."""
        return self.components.shape[1]

    @property
    def digest(self) -> str:
        """SHA-256 of the arrays."""
        digest = hashlib.sha256(f"{self.components.shape}".encode())
        for array in (self.mean, self.components):
            digest.update(np.ascontiguousarray(array, np.float32).tobytes())
        return digest.hexdigest()

    def check_dim(self, dim: int) -> None:
        """Checks a width.

        Raises:
            InputError: it is not between 1 and the greatest one.
        """
        if not 1 <= dim <= self.largest_dim:
            raise InputError(
                f"The projection of the model gives embeddings of 1 to {self.largest_dim} "
                f"dimensions, not {dim}."
            )

    def __call__(self, embeddings: np.ndarray, dim: int) -> np.ndarray:
        """Projects embeddings [M, E] to `dim` dimensions of unit length, float32 [M, dim]."""
        self.check_dim(dim)
        return unit_rows((embeddings - self.mean) @ self.components[:, :dim])


def check_projection(count: int, width: int, dim: int, whitening: float) -> None:
    """Checks the arguments of `fit_projection` for `count` embeddings of a width.

    Raises:
        InputError: there are too few embeddings, or the whitening is not from 0 to 1.
    """
    if not 1 <= dim <= min(width, count - 1):
        raise InputError(
            f"A projection to {dim} dimensions requires embeddings of at least that width and more "
            f"images than that; there are {count:,} images with embeddings of width {width:,}."
        )
    if not 0 <= whitening <= 1:
        raise InputError(f"The whitening must be from 0 to 1, got {whitening}.")


def fit_projection(
    embeddings: np.ndarray,
    pids: np.ndarray,
    dim: int,
    whitening: float = WHITENING,
    fitted_on: str = "",
) -> Projection:
    """Fits a projection: whitening within persons, then principal component analysis (PCA).

    Directions in which the images of one person vary count less. With the covariance within persons
    V diag(w) V^T and u_i = w_i + 0.1 mean(w), embeddings x become::

        (x - mean) V diag(u ** (-whitening / 2))

    and the projection is on the principal components of these. It is plain PCA if no person has
    several images that differ.

    Args:
        embeddings: of a training set, float32 [M, E].
        pids: identities [M].
        dim: greatest width; at most E and M - 1, the number of components of any variance.
        whitening: 0 is plain PCA, 1 makes the variances within persons equal.
        fitted_on: name of the training set.

    Raises:
        InputError: see `check_projection`; or the embeddings vary in fewer than `dim` dimensions,
            or are not finite.
    """
    count, width = embeddings.shape
    check_projection(count, width, dim, whitening)
    bad = ~np.isfinite(embeddings).all(axis=1)
    if bad.any():
        raise InputError(f"{int(bad.sum()):,} of {count:,} embeddings have NaN or infinity.")
    mean = embeddings.mean(axis=0, dtype=np.float64)
    _, persons, images = np.unique(pids, return_inverse=True, return_counts=True)
    centers = np.zeros((len(images), width))
    np.add.at(centers, persons, embeddings)
    centers /= images[:, None]

    total, within = np.zeros((width, width)), np.zeros((width, width))
    # In blocks, because float64 doubles the memory.
    for start in range(0, count, 4096):
        rows = slice(start, start + 4096)
        for covariance, origin in ((total, mean), (within, centers[persons[rows]])):
            block = embeddings[rows] - origin
            covariance += block.T @ block / count

    transform = np.eye(width)
    if np.trace(total) <= 1e-9 * (np.trace(total) + mean @ mean):
        raise InputError(f"All {count:,} embeddings are the same; a projection needs others.")
    # Rounding alone would be whitened if the images of each person were the same.
    if np.trace(within) > 1e-9 * np.trace(total):
        variances, vectors = np.linalg.eigh(within)
        variances = np.maximum(variances, 0) + _REGULARIZATION * np.trace(within) / width
        transform = vectors * variances ** (-whitening / 2)
    variances, directions = np.linalg.eigh(transform.T @ total @ transform)
    variances, directions = variances[::-1], directions[:, ::-1][:, :dim]
    if variances[dim - 1] <= 1e-9 * variances[0]:
        raise InputError(
            f"The embeddings vary in {int((variances > 1e-9 * variances[0]).sum())} dimensions, "
            f"fewer than the {dim} of the projection."
        )
    components = transform @ directions
    # The sign of an eigenvector is arbitrary; this makes the result the same everywhere.
    components *= np.sign(components[np.abs(components).argmax(axis=0), np.arange(dim)])
    return Projection(mean.astype(np.float32), components.astype(np.float32), fitted_on)


PROJECTION_ARRAYS = ("projection/mean", "projection/components")
"""Names of a projection's arrays in a model file."""


def projection_to_file(projection: Projection) -> tuple[dict[str, np.ndarray], str]:
    """Converts a projection to arrays by name and JSON, for a model file."""
    values = (projection.mean, projection.components)
    arrays = {
        name: np.ascontiguousarray(array, np.float32)
        for name, array in zip(PROJECTION_ARRAYS, values, strict=True)
    }
    metadata = {
        "fitted_on": projection.fitted_on,
        "default_dim": projection.default_dim,
        "digest": projection.digest,
    }
    return arrays, json.dumps(metadata)


def projection_from_file(
    source: str, read: Callable[[str], np.ndarray], metadata: str, width: int
) -> Projection:
    """Inverts `projection_to_file`.

    Args:
        source: name of the file in error messages.
        read: returns the array of a name.
        metadata: the JSON.
        width: E, the width of the embeddings.

    Raises:
        InputError: shapes or types do not fit, or the arrays are damaged.
    """
    mean, components = map(read, PROJECTION_ARRAYS)
    if (
        mean.shape != (width,)
        or components.shape[:-1] != (width,)
        or components.ndim != 2
        or {mean.dtype, components.dtype} != {np.dtype(np.float32)}
    ):
        raise InputError(
            f"{source} has a projection of {mean.dtype} {list(mean.shape)} and {components.dtype} "
            f"{list(components.shape)}, expected float32 [{width}] and [{width}, dimensions]."
        )
    settings = parse_json(metadata)
    projection = Projection(mean, components, settings["fitted_on"], settings["default_dim"])
    if projection.digest != settings["digest"]:
        raise InputError(
            f"{source} is damaged: the projection has the digest {projection.digest}, but was "
            f"saved with {settings['digest']}."
        )
    return projection


def reduce_precision(
    embeddings: np.ndarray, precision: Precision
) -> tuple[np.ndarray, np.ndarray | None]:
    """Converts embeddings to fewer bits.

    Args:
        embeddings: float32 [M, E].
        precision: `float32`, `float16` or `int8`.

    Returns:
        The values [M, E] of that type; and for `int8` the scale of each embedding, float32 [M]:
        `values * scale[:, None]` are the embeddings. Cosine similarity does not need it.
    """
    if precision != "int8":
        return embeddings.astype(precision), None
    scales = np.maximum(np.abs(embeddings).max(axis=1, initial=0) / 127, np.float32(1e-30))
    return np.rint(embeddings / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def bytes_of(dim: int, precision: Precision) -> int:
    """Number of bytes of a stored embedding, without the scale of `int8`."""
    return dim * np.dtype(precision).itemsize
