"""Which gallery images count for which query: Market-1501's protocol.

For each query the gallery images with pid -1 (junk) and those with the query's own pid and camera
are dropped; pid 0 (distractors) stays. Without camera ids nothing is dropped but junk.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmgl_jax.evaluation.distances import check_rows

JUNK_PID = -1


@dataclass(frozen=True, eq=False)
class Labels:
    """Checked labels of queries and gallery, and an index of the gallery by identity."""

    query_pids: np.ndarray
    """Identities [Q]."""
    query_camids: np.ndarray | None
    """Cameras [Q]."""
    gallery_camids: np.ndarray | None
    """Cameras of the gallery without junk."""
    n_gallery: int
    """G, with junk."""
    kept: np.ndarray | None
    """Indices of the gallery images that are not junk; None if all are."""
    order: np.ndarray
    """The gallery without junk, sorted by pid; indices of one pid ascend."""
    sorted_pids: np.ndarray
    """The pids in that order."""

    @classmethod
    def check(
        cls,
        shape: tuple[int, int],
        query_pids: ArrayLike,
        query_camids: ArrayLike | None,
        gallery_pids: ArrayLike,
        gallery_camids: ArrayLike | None,
    ) -> "Labels":
        """Checks labels against the shape (Q, G).

        Raises:
            TypeError: a label is not an integer.
            ValueError: shapes do not agree, or only one side has camera ids.
        """
        if (query_camids is None) != (gallery_camids is None):
            raise ValueError(
                "Camera ids must be given for both the query and the gallery or for neither, got "
                f"them for the {'gallery' if query_camids is None else 'query'} alone."
            )
        n_query, n_gallery = shape
        query_pids = _integers("query pids", query_pids, n_query)
        gallery_pids = _integers("gallery pids", gallery_pids, n_gallery)
        kept = gallery_pids != JUNK_PID
        if query_camids is not None:
            query_camids = _integers("query camera ids", query_camids, n_query)
            gallery_camids = _integers("gallery camera ids", gallery_camids, n_gallery)[kept]
        order = np.argsort(gallery_pids[kept], kind="stable")
        return cls(
            query_pids=query_pids,
            query_camids=query_camids,
            gallery_camids=gallery_camids,
            n_gallery=n_gallery,
            kept=None if kept.all() else np.flatnonzero(kept),
            order=order,
            sorted_pids=gallery_pids[kept][order],
        )

    @property
    def n_negative_pairs(self) -> int:
        """Pairs of a query and a gallery image, not junk, of another identity."""
        left, right = (
            np.searchsorted(self.sorted_pids, self.query_pids, s) for s in ("left", "right")
        )
        return len(self.query_pids) * len(self.sorted_pids) - int((right - left).sum())

    def walk(
        self, blocks: Iterable[tuple[slice, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Goes through blocks of distances query by query.

        Args:
            blocks: slices of the queries, in order, and their distances [block, G].

        Yields:
            The query, its distances to the gallery without junk, and the places there of its
            matches and of the dropped images of its own camera, both ascending.

        Raises:
            ValueError: the blocks are not the queries in order, or a distance is NaN.
        """
        n, done = len(self.query_pids), 0
        for rows, block in blocks:
            if rows.start != done or block.shape != (rows.stop - done, self.n_gallery):
                raise ValueError(
                    f"Distances of the queries from {done} to all {self.n_gallery} gallery images "
                    f"must come next, got shape {block.shape} for the queries from {rows.start} "
                    f"to {rows.stop}."
                )
            check_rows("distances", np.isnan(block), "NaN", done)
            for query, row in enumerate(block, start=done):
                yield query, row if self.kept is None else row[self.kept], *self._split(query)
            done = rows.stop
        if done != n:
            raise ValueError(f"Distances of {n} queries must come, got those of {done}.")

    def _split(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Places of the query's identity: of other cameras, and of its own."""
        pid = self.query_pids[query]
        start, stop = np.searchsorted(self.sorted_pids, [pid, pid + 1])
        same_pid = self.order[start:stop]
        if self.query_camids is None:
            return same_pid, same_pid[:0]
        same_camera = self.gallery_camids[same_pid] == self.query_camids[query]
        return same_pid[~same_camera], same_pid[same_camera]


def _integers(name: str, labels: ArrayLike, length: int) -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != (length,):
        raise ValueError(f"The {name} must have shape ({length},), got {array.shape}.")
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"The {name} must be integers, got {array.dtype}.")
    return array.astype(np.int64)
