"""Exact nearest neighbors of queries among many embeddings, stored in 4, 2 or 1 byte a value."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from data_prep.errors import InputError
from rmgl_jax.evaluation.distances import check_features
from rmgl_jax.evaluation.projection import Precision, reduce_precision

_PIECE_BYTES = 16 * 2**20
"""Size of a piece of the gallery as float32: a CPU keeps it in its cache between the conversion and
the product."""
_AHEAD = 2
"""Pieces that are computed while the results of the one before are read."""


class Found(NamedTuple):
    """The nearest gallery embeddings of each query, best first."""

    indices: np.ndarray
    """Rows of the gallery, int64 [Q, k]; of equal similarities the first row is first."""
    similarities: np.ndarray
    """Inner products, float32 [Q, k]."""


@dataclass(frozen=True, eq=False)
class FlatIndex:
    """Exact search by inner product, which is cosine similarity for embeddings of unit length.

    `FlatIndex.build(gallery).search(queries, k)`. The gallery is kept on the default device, at
    float16 in half of the memory and at int8 in a quarter; products are float32.
    """

    width: int
    """E, the width of the embeddings."""
    pieces: tuple[tuple[jax.Array, jax.Array | None], ...]
    """Consecutive rows of the gallery [n, E], and for int8 the scale of each row [n]."""

    @classmethod
    def build(
        cls,
        gallery: np.ndarray | Iterable[np.ndarray],
        precision: Precision = "float32",
    ) -> "FlatIndex":
        """Stores a gallery.

        Args:
            gallery: embeddings, float32 [G, E]; or consecutive parts [n, E] of them, of which one
                at a time is kept.
            precision: type of the stored values.

        Raises:
            InputError: `precision` is unknown, a value is not finite, there are no parts, or widths
                differ.
            ValueError: the gallery or a part is not a matrix, or is empty.
        """
        if precision not in get_args(Precision):
            raise InputError(f"precision must be one of {get_args(Precision)}, got {precision!r}.")
        parts = [gallery] if isinstance(gallery, np.ndarray) else gallery
        pieces = [_store(piece, precision) for piece in _split(parts)]
        if not pieces:
            raise InputError("An index needs at least one embedding.")
        widths = {values.shape[1] for values, _ in pieces}
        if len(widths) > 1:
            raise InputError(f"Embeddings of an index must have one width, got {sorted(widths)}.")
        return cls(widths.pop(), tuple(pieces))

    def __len__(self) -> int:
        return sum(len(values) for values, _ in self.pieces)

    def search(self, queries: np.ndarray, k: int = 10) -> Found:
        """Finds the k embeddings with the greatest inner products.

        Args:
            queries: embeddings, float32 [Q, E].
            k: neighbors of each query; at most as many as the gallery has.

        Raises:
            InputError: `k` is less than 1, the widths differ, or a value is not finite.
        """
        queries = check_features("queries", queries).astype(np.float32, copy=False)
        if queries.shape[1] != self.width:
            raise InputError(f"The queries have width {queries.shape[1]}, not {self.width}.")
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}.")
        similarities, indices, start = [], [], 0
        for scores, rows, count in self._best(jnp.asarray(queries), k):
            similarities.append(np.asarray(scores))
            indices.append(np.asarray(rows, np.int64) + start)
            start += count
        return _merge(np.concatenate(similarities, axis=1), np.concatenate(indices, axis=1), k)

    def _best(self, queries: jax.Array, k: int) -> Iterator[tuple[jax.Array, jax.Array, int]]:
        """Yields the best of each piece, and its number of rows."""
        pending: deque[tuple[jax.Array, jax.Array, int]] = deque()
        for values, scale in self.pieces:
            best = _best_of_piece(queries, values, scale, min(k, len(values)))
            pending.append((*best, len(values)))
            if len(pending) > _AHEAD:
                yield pending.popleft()
        yield from pending


@partial(jax.jit, static_argnames="k")
def _best_of_piece(
    queries: jax.Array, values: jax.Array, scale: jax.Array | None, k: int
) -> tuple[jax.Array, jax.Array]:
    gallery = values.astype(jnp.float32)
    scores = jnp.dot(queries, gallery.T, precision=jax.lax.Precision.HIGHEST)
    if scale is not None:
        scores *= scale[None, :]
    best, rows = jax.lax.top_k(scores, k)
    return best, rows


def _split(parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cuts parts into pieces of `_PIECE_BYTES` as float32; what is left over is a shorter piece."""
    for part in parts:
        checked = check_features("gallery", part)
        rows = max(1, _PIECE_BYTES // (4 * checked.shape[1]))
        for start in range(0, len(checked), rows):
            yield checked[start : start + rows]


def _store(piece: np.ndarray, precision: Precision) -> tuple[jax.Array, jax.Array | None]:
    values, scale = reduce_precision(piece, precision)
    return jnp.asarray(values), None if scale is None else jnp.asarray(scale)


def _merge(similarities: np.ndarray, indices: np.ndarray, k: int) -> Found:
    """Selects the best k of the candidates [Q, n]."""
    order = np.lexsort((indices, -similarities))[:, :k]
    return Found(
        np.take_along_axis(indices, order, axis=1), np.take_along_axis(similarities, order, axis=1)
    )
