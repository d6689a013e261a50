"""Labels of queries and gallery under the protocol of Market-1501.

For each query, gallery images with pid -1 (junk) and those with both the pid and the camera of the
query (same-camera rule) are dropped; pid 0 (distractors) stays. Without camera ids only junk is
dropped.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from data_prep.errors import InputError
from rmgl_jax.evaluation.distances import check_rows

JUNK_PID = -1
"""Identity of gallery images that are ignored for every query."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Checked labels of queries and gallery, and an index of the gallery by identity."""

    query_pids: np.ndarray
    """Identities [Q]."""
    query_camids: np.ndarray | None
    """Cameras [Q]."""
    gallery_camids: np.ndarray | None
    """Cameras of the gallery images that are not junk."""
    n_gallery: int
    """G, including junk."""
    kept: np.ndarray | None
    """Indices of the gallery images that are not junk; None if all are."""
    order: np.ndarray
    """Positions among the gallery images that are not junk, sorted by pid, then by position."""
    sorted_pids: np.ndarray
    """Identities in the order of `order`."""

    @classmethod
    def check(
        cls,
        shape: tuple[int, int],
        query_pids: ArrayLike,
        query_camids: ArrayLike | None,
        gallery_pids: ArrayLike,
        gallery_camids: ArrayLike | None,
    ) -> "Labels":
        """Checks labels against the shape (Q, G) and indexes the gallery.

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
        of_query = _integers("query pids", query_pids, n_query)
        of_gallery = _integers("gallery pids", gallery_pids, n_gallery)
        kept = of_gallery != JUNK_PID
        query_cameras = gallery_cameras = None
        if query_camids is not None and gallery_camids is not None:
            query_cameras = _integers("query camera ids", query_camids, n_query)
            gallery_cameras = _integers("gallery camera ids", gallery_camids, n_gallery)[kept]
        order = np.argsort(of_gallery[kept], kind="stable")
        return cls(
            query_pids=of_query,
            query_camids=query_cameras,
            gallery_camids=gallery_cameras,
            n_gallery=n_gallery,
            kept=None if kept.all() else np.flatnonzero(kept),
            order=order,
            sorted_pids=of_gallery[kept][order],
        )

    @property
    def n_negative_pairs(self) -> int:
        """Number of pairs of a query and a gallery image of another identity, without junk."""
        left = np.searchsorted(self.sorted_pids, self.query_pids, "left")
        right = np.searchsorted(self.sorted_pids, self.query_pids, "right")
        return len(self.query_pids) * len(self.sorted_pids) - int((right - left).sum())

    def check_matches(self) -> None:
        """Checks that the set can be evaluated.

        Raises:
            InputError: no query has a match.
        """
        queries = range(len(self.query_pids))
        if not any(len(self._split(query)[0]) for query in queries):
            raise InputError(
                f"None of the {len(queries)} queries has a match: no gallery image of the same "
                "identity is left after junk and images of the query's own camera are dropped."
            )

    def check_negatives(self) -> None:
        """Checks that thresholds can be measured.

        Raises:
            InputError: there is no pair of different persons.
        """
        if not self.n_negative_pairs:
            raise InputError(
                "Query and gallery have no pair of different persons, so that no threshold can be "
                "set."
            )

    def iterate_queries(
        self, blocks: Iterable[tuple[slice, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Iterates over the queries of a distance matrix that comes in blocks.

        Args:
            blocks: slices of the queries, in order, and their distances [block, G].

        Yields:
            Index of the query; its distances to the gallery images that are not junk; positions in
            that row of its matches, and of images that the same-camera rule drops, both ascending.

        Raises:
            ValueError: the blocks are not all queries in order.
            InputError: a distance is NaN.
        """
        n, done = len(self.query_pids), 0
        for rows, block in blocks:
            if rows.start != done or block.shape != (rows.stop - done, self.n_gallery):
                raise ValueError(
                    f"The next block must hold the distances of the queries from {done} on to all "
                    f"{self.n_gallery} gallery images, got shape {block.shape} for the queries "
                    f"from {rows.start} to {rows.stop}."
                )
            check_rows("distances", np.isnan(block), "NaN", done)
            for query, row in enumerate(block, start=done):
                yield query, row if self.kept is None else row[self.kept], *self._split(query)
            done = rows.stop
        if done != n:
            raise ValueError(f"The blocks must hold distances of {n} queries, got {done}.")

    def _split(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions of images of the query's identity: those of other cameras, those of its own."""
        pid = self.query_pids[query]
        start, stop = np.searchsorted(self.sorted_pids, [pid, pid + 1])
        same_pid = self.order[start:stop]
        if self.query_camids is None or self.gallery_camids is None:
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
