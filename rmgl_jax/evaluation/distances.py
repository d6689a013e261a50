"""Squared Euclidean distances of embeddings, in tiles: the one formula every evaluation uses."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

# A tile of distances is about this large (in float32), whatever the gallery's size.
TILE_BYTES = 128 * 2**20
# Gallery images whose distances are computed at once.
_PIECE = 1024


@jax.jit
def squared_distances(query: jax.Array, gallery: jax.Array) -> jax.Array:
    """|q - g|^2 = |q|^2 + |g|^2 - 2 q.g of every pair, in float32 and never below 0.

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
    """`squared_distances` of the L2-normalized embeddings, 2 - 2 cos: in [0, 4].

    Args:
        query: embeddings [Q, E], none of them zero.
        gallery: embeddings [G, E], none of them zero.

    Returns:
        Squared Euclidean distances [Q, G].
    """
    query, gallery = query.astype(jnp.float32), gallery.astype(jnp.float32)
    products = jnp.dot(query, gallery.T, precision=jax.lax.Precision.HIGHEST)
    # The products are scaled instead of the features, of which that would make a copy.
    query_scale = jax.lax.rsqrt(jnp.sum(query**2, axis=1))[:, None]
    gallery_scale = jax.lax.rsqrt(jnp.sum(gallery**2, axis=1))[None, :]
    return jnp.maximum(2.0 - 2.0 * (products * query_scale * gallery_scale), 0.0)


def distance_blocks(
    query: np.ndarray,
    gallery: np.ndarray,
    block: int | None = None,
    distances: Callable[[jax.Array, jax.Array], jax.Array] = squared_distances,
) -> Iterator[tuple[slice, np.ndarray]]:
    """The rows of a matrix of distances in blocks, computed on the default JAX device.

    Args:
        query: embeddings [Q, E].
        gallery: embeddings [G, E]; the device holds them once.
        block: queries of a block; None chooses blocks of about 128 MiB.
        distances: `squared_distances` or `unit_distances`.

    Yields:
        The block's slice of the queries, and its distances [block, G], a NumPy array.
    """
    # Pieces, because a product packs its operands anew each time.
    pieces = [jnp.asarray(gallery[i]) for i in row_blocks(len(gallery), 1, _PIECE)]
    for rows in row_blocks(len(query), len(gallery), block):
        queries = jnp.asarray(query[rows])
        tiles = [distances(queries, piece) for piece in pieces]
        yield rows, np.concatenate(tiles, axis=1)


def row_blocks(rows: int, columns: int, block: int | None = None) -> list[slice]:
    """Cuts `rows` into slices of `block`, or of as many as make a tile of about `TILE_BYTES`."""
    if block is None:
        block = max(1, TILE_BYTES // (4 * max(columns, 1)))
    elif block < 1:
        raise ValueError(f"A block must hold at least 1 row, got {block}.")
    return [slice(start, min(start + block, rows)) for start in range(0, rows, block)]


def check_distances(distances: ArrayLike) -> np.ndarray:
    """Refuses anything but a floating-point matrix; copies nothing and looks at no value.

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
    """Refuses anything but a finite floating-point matrix with rows; copies nothing.

    Args:
        name: what the message calls the features, as "query features".
        features: embeddings [M, E].

    Returns:
        The features as a NumPy array.

    Raises:
        TypeError: the values are not floating-point numbers.
        ValueError: the shape is wrong, or a row holds NaN or infinity.
    """
    array = np.asarray(features)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"The {name} must be a matrix [images, width] that is not empty, got shape "
            f"{array.shape}."
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"The {name} must be floating-point numbers, got {array.dtype}.")
    for rows in row_blocks(*array.shape):
        check_rows(name, ~np.isfinite(array[rows]), "NaN or infinity", rows.start)
    return array


def check_pair(query: ArrayLike, gallery: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """`check_features` of query and gallery, which must have the same width.

    Raises:
        TypeError: the values are not floating-point numbers.
        ValueError: a shape is wrong, the widths differ, or a row holds NaN or infinity.
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
    """Refuses features that cannot be scaled to unit length.

    Raises:
        ValueError: a row holds only zeros.
    """
    for name, features in (("query features", query), ("gallery features", gallery)):
        check_rows(name, ~features.any(axis=1), "only zeros")


def check_rows(name: str, bad: np.ndarray, what: str, first_row: int = 0) -> None:
    """Raises if a row of the mask `bad` [rows, ...] is set, naming the first such row.

    Raises:
        ValueError: some row is bad.
    """
    if bad.any():
        row = first_row + int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
        raise ValueError(f"The {name} hold {what} in row {row}.")
