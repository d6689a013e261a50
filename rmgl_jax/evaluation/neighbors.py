"""Exact nearest neighbors of all images among all, in tiles, without an N x N matrix.

A tile of distances is computed once and serves both its rows and its columns. That halves the
products, and makes d(i, j) and d(j, i) the same number.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from rmgl_jax.evaluation.distances import unit_distances

# Side of a square tile.
_TILE = 1024
# A neighbor is one number: the bits of its distance above its index. Distances are not negative,
# so their bits have their order, and comparing the numbers compares (distance, index).
_INDEX_BITS = np.uint64(32)
_NOBODY = np.uint64(int(np.float32(np.inf).view(np.uint32)) << 32 | 0xFFFFFFFF)


class Neighbors(NamedTuple):
    """The nearest of every image."""

    indices: np.ndarray
    """[N, 1 + k] the image itself, then the others by (distance, index)."""
    distances: np.ndarray
    """[N, 1 + k] their distances."""
    farthest: np.ndarray
    """[N] the largest distance of each image from any."""


def nearest_neighbors(
    parts: Sequence[np.ndarray], k: int, between: np.ndarray | None = None
) -> Neighbors:
    """The k nearest others of every image by `unit_distances`, and the distance of its farthest.

    Args:
        parts: embeddings [M, E] in one or several arrays, numbered through; N in all, at least 2.
        k: neighbors beside the image itself; no more than N - 1 are found.
        between: filled with the distances between the first part and the second, if given.

    Returns:
        Indices [N, 1 + k]: the image itself, then the others by (distance, index). And the largest
        distance [N] of each image from any.
    """
    n, first = sum(len(part) for part in parts), len(parts[0])
    k = min(k, n - 1)
    nearest = np.full((n, k), _NOBODY)
    farthest = np.zeros(n, np.float32)
    for rows, columns, tile, row_maxima, column_maxima in _tiles(parts):
        tile = np.asarray(tile)
        if rows == columns:
            tile = tile.copy()
            np.fill_diagonal(tile, np.nan)  # never near: no image is among its own others
        farthest[rows] = np.maximum(farthest[rows], row_maxima)
        limits = _limits(nearest[rows])
        if rows == columns:
            # The k nearest within the tile bound the k nearest of all; NaN stands for too few.
            last = min(k, len(tile)) - 1
            limits = np.fmin(limits, np.partition(tile, last, axis=1)[:, last])
        i, j = _where(tile <= limits[:, None])
        _insert(nearest[rows], i, j + columns.start, tile[i, j])
        if rows != columns:
            farthest[columns] = np.maximum(farthest[columns], column_maxima)
            i, j = _where(tile <= _limits(nearest[columns]))
            by_column = np.argsort(j, kind="stable")
            i, j = i[by_column], j[by_column]
            _insert(nearest[columns], j, i + rows.start, tile[i, j])
        if between is not None and rows.start < first <= columns.start:
            between[rows, columns.start - first : columns.stop - first] = tile
    nearest.sort(axis=1)
    itself = np.arange(n, dtype=np.int32)[:, None]
    others = nearest.astype(np.uint32).astype(np.int32)  # the lower half
    return Neighbors(
        indices=np.concatenate([itself, others], axis=1),
        distances=np.concatenate([np.zeros((n, 1), np.float32), _distances(nearest)], axis=1),
        farthest=farthest,
    )


def _tiles(
    parts: Sequence[np.ndarray],
) -> Iterator[tuple[slice, slice, jax.Array, jax.Array, jax.Array]]:
    """Tiles on and above the diagonal: rows, columns, distances, their row and column maxima.

    Those on it come first: each image then has neighbors, so that most of the others are passed
    over by one comparison.
    """
    cuts, start = [], 0
    for part in parts:
        for begin in range(0, len(part), _TILE):
            piece = part[begin : begin + _TILE]
            cuts.append((slice(start, start + len(piece)), piece))
            start += len(piece)
    ahead = None
    pairs = itertools.chain(zip(cuts, cuts, strict=True), itertools.combinations(cuts, 2))
    for (rows, row_features), (columns, column_features) in pairs:
        tile = _tile(row_features, column_features)
        # The device computes the next tile while this one is looked through.
        if ahead is not None:
            yield ahead
        ahead = (rows, columns, *tile)
    yield ahead


@jax.jit
def _tile(rows: jax.Array, columns: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    distances = unit_distances(rows, columns)
    return distances, distances.max(axis=1), distances.max(axis=0)


def _distances(neighbors: np.ndarray) -> np.ndarray:
    return (neighbors >> _INDEX_BITS).astype(np.uint32).view(np.float32)


def _limits(nearest: np.ndarray) -> np.ndarray:
    """Distance [n] of the last of the k nearest [n, k]; infinite while they are fewer than k."""
    return _distances(nearest[:, -1])


def _where(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`np.nonzero` of a matrix, some ten times as fast where little is set."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _insert(
    nearest: np.ndarray, images: np.ndarray, others: np.ndarray, distances: np.ndarray
) -> None:
    """Updates the k nearest [n, k] by pairs, given in the order of the images.

    The last of the k stays the farthest of them; the others are in no order.
    """
    if not len(images):
        return
    k = nearest.shape[1]
    touched, starts, counts = np.unique(images, return_index=True, return_counts=True)
    bits = distances.view(np.uint32).astype(np.uint64)
    new = np.full((len(touched), counts.max()), _NOBODY)
    row = np.repeat(np.arange(len(touched)), counts)
    new[row, np.arange(len(images)) - starts[row]] = bits << _INDEX_BITS | others.astype(np.uint64)
    everyone = np.concatenate([nearest[touched], new], axis=1)
    nearest[touched] = np.partition(everyone, k - 1, axis=1)[:, :k]
