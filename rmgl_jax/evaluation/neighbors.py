"""Exact nearest neighbors of all images among all images, without an N x N matrix.

Distances are computed in square tiles. A tile serves both its rows and its columns, which halves
the products and makes d(i, j) and d(j, i) the same number.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from rmgl_jax.evaluation.distances import unit_distances

# A neighbor is packed into one integer: the bits of its distance above its index. Distances are not
# negative, so that their bits have their order, and integers compare as (distance, index) does.
_INDEX_BITS = np.uint64(32)
_EMPTY = np.uint64(int(np.float32(np.inf).view(np.uint32)) << 32 | 0xFFFFFFFF)


class Neighbors(NamedTuple):
    """Nearest neighbors of every image."""

    indices: np.ndarray
    """[N, 1 + k] the image itself, then its neighbors sorted by (distance, index)."""
    distances: np.ndarray
    """[N, 1 + k] distances of `indices`."""
    farthest: np.ndarray
    """[N] largest distance of each image from any other."""


def nearest_neighbors(
    parts: Sequence[np.ndarray], k: int, between: np.ndarray | None = None, tile: int = 1024
) -> Neighbors:
    """Finds the k nearest other images of every image by `unit_distances`.

    Args:
        parts: embeddings [M, E] in one or several arrays, numbered consecutively; N in all, at
            least 2.
        k: neighbors in addition to the image itself; at most N - 1 are found.
        between: if given, filled with the distances between the first part and the second.
        tile: side of a tile of distances.

    Returns:
        Indices and distances of the neighbors, and the largest distance of each image.
    """
    n, first = sum(len(part) for part in parts), len(parts[0])
    k = min(k, n - 1)
    nearest = np.full((n, k), _EMPTY)
    farthest = np.zeros(n, np.float32)
    for rows, columns, tile_distances, row_maxima, column_maxima in _tiles(parts, tile):
        distances = np.asarray(tile_distances)
        if rows == columns:
            distances = distances.copy()
            np.fill_diagonal(distances, np.nan)  # compares as false: an image is not its neighbor
        farthest[rows] = np.maximum(farthest[rows], row_maxima)
        limits = _limits(nearest[rows])
        if rows == columns:
            # The k nearest within the tile bound the k nearest of all; NaN if there are fewer.
            last = min(k, len(distances)) - 1
            limits = np.fmin(limits, np.partition(distances, last, axis=1)[:, last])
        i, j = _nonzero(distances <= limits[:, None])
        _insert(nearest[rows], i, j + columns.start, distances[i, j])
        if rows != columns:
            farthest[columns] = np.maximum(farthest[columns], column_maxima)
            i, j = _nonzero(distances <= _limits(nearest[columns]))
            by_column = np.argsort(j, kind="stable")
            i, j = i[by_column], j[by_column]
            _insert(nearest[columns], j, i + rows.start, distances[i, j])
        if between is not None and rows.start < first <= columns.start:
            between[rows, columns.start - first : columns.stop - first] = distances
    nearest.sort(axis=1)
    itself = np.arange(n, dtype=np.int32)[:, None]
    others = nearest.astype(np.uint32).astype(np.int32)  # the lower half
    return Neighbors(
        indices=np.concatenate([itself, others], axis=1),
        distances=np.concatenate([np.zeros((n, 1), np.float32), _distances(nearest)], axis=1),
        farthest=farthest,
    )


def _tiles(
    parts: Sequence[np.ndarray], side: int
) -> Iterator[tuple[slice, slice, jax.Array, jax.Array, jax.Array]]:
    """Yields rows, columns, distances, row maxima and column maxima of the upper triangle's tiles.

    Tiles on the diagonal come first: each image then has neighbors, so that one comparison rules
    out most distances of the other tiles.
    """
    cuts, start = [], 0
    for part in parts:
        for begin in range(0, len(part), side):
            piece = part[begin : begin + side]
            cuts.append((slice(start, start + len(piece)), piece))
            start += len(piece)
    previous = None
    pairs = itertools.chain(zip(cuts, cuts, strict=True), itertools.combinations(cuts, 2))
    for (rows, row_features), (columns, column_features) in pairs:
        tile = _tile(row_features, column_features)
        # The device computes the next tile while the caller searches this one.
        if previous is not None:
            yield previous
        previous = (rows, columns, *tile)
    if previous is not None:
        yield previous


@jax.jit
def _tile(rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    distances = unit_distances(rows, columns)
    return distances, distances.max(axis=1), distances.max(axis=0)


def _distances(neighbors: np.ndarray) -> np.ndarray:
    return (neighbors >> _INDEX_BITS).astype(np.uint32).view(np.float32)


def _limits(nearest: np.ndarray) -> np.ndarray:
    """Returns the distance [n] of the last of k neighbors [n, k]; infinite if fewer were found."""
    return _distances(nearest[:, -1])


def _nonzero(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes `np.nonzero` of a matrix; about ten times as fast where few elements are set."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _insert(
    nearest: np.ndarray, images: np.ndarray, others: np.ndarray, distances: np.ndarray
) -> None:
    """Inserts pairs, sorted by image, into the k nearest neighbors [n, k] of every image.

    The last of the k stays the farthest; the others are in no order.
    """
    if not len(images):
        return
    k = nearest.shape[1]
    touched, starts, counts = np.unique(images, return_index=True, return_counts=True)
    bits = distances.view(np.uint32).astype(np.uint64)
    new = np.full((len(touched), counts.max()), _EMPTY)
    row = np.repeat(np.arange(len(touched)), counts)
    new[row, np.arange(len(images)) - starts[row]] = bits << _INDEX_BITS | others.astype(np.uint64)
    candidates = np.concatenate([nearest[touched], new], axis=1)
    nearest[touched] = np.partition(candidates, k - 1, axis=1)[:, :k]
