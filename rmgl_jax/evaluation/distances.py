"""Squared Euclidean distances of embeddings, in tiles, and the checks of their inputs."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from data_prep.errors import InputError

TILE_BYTES = 128 * 2**20
"""Size of a block of float32 distances, unless a number of rows is given."""


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Scales rows [M, E] to length 1; a row of zeros stays zero."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: np.ndarray = features / np.maximum(lengths, 1e-12)
    return scaled


@jax.jit
def squared_distances(query: jax.Array, gallery: jax.Array) -> jax.Array:
    """Computes `max(|q|^2 + |g|^2 - 2 q.g, 0) = |q - g|^2` for every pair, in float32.

    Args:
        query: embeddings [Q, E].
        gallery: embeddings [G, E].

    Returns:
        Squared Euclidean distances [Q, G].
    """
    query, gallery = query.astype(jnp.float32), gallery.astype(jnp.float32)
    products = jnp.dot(query, gallery.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(query**2, axis=1)[:, None] + jnp.sum(gallery**2, axis=1)[None, :]
    return jnp.maximum(norms - 2.0 * products, 0.0)


@jax.jit
def unit_distances(query: jax.Array, gallery: jax.Array) -> jax.Array:
    """Computes `squared_distances` of the L2-normalized embeddings: 2 - 2 cos(q, g), in [0, 4].

    Args:
        query: embeddings [Q, E], none of them zero.
        gallery: embeddings [G, E], none of them zero.

    Returns:
        Squared Euclidean distances [Q, G].
    """
    query, gallery = query.astype(jnp.float32), gallery.astype(jnp.float32)
    products = jnp.dot(query, gallery.T, precision=jax.lax.Precision.HIGHEST)
    # Scaling the products avoids a normalized copy of the features.
    query_scale = jax.lax.rsqrt(jnp.sum(query**2, axis=1))[:, None]
    gallery_scale = jax.lax.rsqrt(jnp.sum(gallery**2, axis=1))[None, :]
    return jnp.maximum(2.0 - 2.0 * (products * query_scale * gallery_scale), 0.0)


def distance_blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    block: int | None = None,
    distances: Callable[[jax.Array, jax.Array], jax.Array] = squared_distances,
    piece: int = 1024,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the distance matrix in blocks of queries, computed on the default JAX device.

    Args:
        query: embeddings [Q, E].
        gallery: embeddings [G, E]; one copy is kept on the device.
        block: queries in a block; by default as many as fit `TILE_BYTES`.
        distances: `squared_distances` or `unit_distances`.
        piece: gallery images in one product.

    Yields:
        The slice of the queries in the block, and their distances [block, G] as a NumPy array.
    """
    # In pieces, because XLA packs the operands of every product again.
    pieces = [jnp.asarray(gallery[i]) for i in row_blocks(len(gallery), 1, piece)]
    for rows in row_blocks(len(query), len(gallery), block):
        queries = jnp.asarray(query[rows])
        tiles = [distances(queries, piece) for piece in pieces]
        yield rows, np.concatenate(tiles, axis=1)


def row_blocks(rows: int, columns: int, block: int | None = None) -> list[slice]:
    """Splits `rows` into slices of `block` rows; by default as many as fit `TILE_BYTES`."""
    if block is None:
        block = max(1, TILE_BYTES // (4 * max(columns, 1)))
    elif block < 1:
        raise ValueError(f"A block must hold at least 1 row, got {block}.")
    return [slice(start, min(start + block, rows)) for start in range(0, rows, block)]


def check_distances(distances: ArrayLike) -> np.ndarray:
    """Returns the distances as a NumPy array after checking shape and type, but no values.

    Raises:
        TypeError: the values are not floating-point numbers.
        ValueError: the shape is wrong.
    """
    array = np.asarray(distances)
    if array.ndim != 2:
        raise ValueError(f"The distances must be a matrix [Q, G], got shape {array.shape}.")
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"The distances must be floating-point numbers, got {array.dtype}.")
    return array


def check_features(name: str, features: ArrayLike) -> np.ndarray:
    """Checks that features are a finite floating-point matrix that is not empty.

    Args:
        name: name of the features in error messages, such as "query features".
        features: embeddings [M, E].

    Returns:
        The features as a NumPy array, not copied.

    Raises:
        TypeError: the values are not floating-point numbers.
        ValueError: the shape is wrong.
        InputError: a row contains NaN or infinity.
    """
    array = np.asarray(features)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"The {name} must be a matrix [M, E] that is not empty, got shape {array.shape}."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"The {name} must be floating-point numbers, got {array.dtype}.")
    for rows in row_blocks(*array.shape):
        check_rows(name, ~np.isfinite(array[rows]), "NaN or infinity", rows.start)
    return array


def check_pair(query: ArrayLike, gallery: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Applies `check_features` to query and gallery, and checks that their widths are equal.

    Raises:
        TypeError: the values are not floating-point numbers.
        ValueError: a shape is wrong, or the widths differ.
        InputError: a row contains NaN or infinity.
    """
    query = check_features("query features", query)
    gallery = check_features("gallery features", gallery)
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"Query and gallery features must have the same width, got {query.shape[1]} and "
            f"{gallery.shape[1]}."
        )
    return query, gallery


def check_zeros(query: np.ndarray, gallery: np.ndarray) -> None:
    """Checks that all features can be scaled to unit length.

    Raises:
        InputError: a row contains only zeros.
    """
    for name, features in (("query features", query), ("gallery features", gallery)):
        check_rows(name, ~np.any(features, axis=1), "only zeros")


def check_rows(name: str, bad: np.ndarray, what: str, first_row: int = 0) -> None:
    """Raises an error that names the first row in which the mask `bad` [rows, ...] is set.

    Raises:
        InputError: the mask is set somewhere.
    """
    if bad.any():
        row = first_row + int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
        raise InputError(f"The {name} contain {what} in row {row}.")
