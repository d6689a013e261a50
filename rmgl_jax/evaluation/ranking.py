"""CMC, mAP (both definitions) and mINP of a gallery ranked for each query.

Rows of distances are not sorted. All metrics follow from the ranks of a query's few matches, and
the rank of a match is one more than the number of gallery images closer to the query: one
comparison of the row per match, limited by memory bandwidth only.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmgl_jax.evaluation.distances import (
    check_distances,
    check_pair,
    distance_blocks,
    row_blocks,
)
from rmgl_jax.evaluation.labels import Labels


@dataclass(frozen=True, eq=False)
class RankMetrics:
    """Metrics of a ranking, all in [0, 1]. See `rank_metrics` for their definitions.

    Means are over valid queries: those with at least one match in the gallery.
    """

    cmc: np.ndarray
    """[max_rank] CMC curve: element k - 1 is the share of queries whose first match has at most
    rank k."""
    mean_ap: float
    """mAP, step definition: mean of `ap`."""
    mean_ap_official: float
    """mAP as Market-1501's evaluation code computes it: mean of `ap_official`."""
    mean_inp: float
    """mINP: mean of `inp`."""
    n_valid_queries: int
    """Number of queries with at least one match."""
    ap: np.ndarray
    """[Q] step AP of each query; NaN for a query without match."""
    ap_official: np.ndarray
    """[Q] official AP of each query; NaN for a query without match."""
    inp: np.ndarray
    """[Q] INP of each query; NaN for a query without match."""
    first_match_rank: np.ndarray
    """[Q] 1-based rank of each query's first match; -1 for a query without match."""


def rank_metrics(
    distances: ArrayLike,
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    max_rank: int = 50,
) -> RankMetrics:
    """Computes CMC, mAP (both definitions) and mINP of a gallery ranked by distance.

    The protocol is that of Market-1501 (Zheng et al., ICCV 2015). For each query, gallery images
    with pid -1 (junk) are dropped, and so are those with both the pid and the camera of the query
    (same-camera rule); images with pid 0 (distractors) stay. The other images are ranked by rising
    distance; among equal distances the lower gallery index comes first. Those with the pid of the
    query are its matches. With r_1 < ... < r_n the 1-based ranks of its n matches::

        CMC(k)      = share of queries with r_1 <= k
        AP          = 1/n sum_i i / r_i                              (step)
        AP official = 1/n sum_i 1/2 (i / r_i + (i - 1) / (r_i - 1))  (trapezoid)
        INP         = n / r_n

    where (i - 1) / (r_i - 1) is 1 if r_i = 1. The step AP is that of scikit-learn, torchreid and
    fast-reid; the official one is the trapezoidal rule of Market-1501's evaluation code, and is
    never larger. INP is the inverse negative penalty of Ye et al. (TPAMI 2022). mAP and mINP are
    means over the queries with n > 0; the others (invalid queries) do not count in CMC either.

    Args:
        distances: [Q, G], smaller is more similar. Infinity is allowed, NaN is not.
        query_pids: identities [Q], integers.
        query_camids: cameras [Q], integers. None for both query and gallery disables the
            same-camera rule.
        gallery_pids: identities [G], integers.
        gallery_camids: cameras [G], integers, or None.
        max_rank: length of the CMC curve.

    Returns:
        Means over all valid queries, and the values of each query.

    Raises:
        TypeError: distances are not floating-point numbers, or labels are not integers.
        ValueError: shapes do not agree, or `max_rank` is less than 1.
        InputError: a distance is NaN, or no query has a match.
    """
    distances = check_distances(distances)
    labels = Labels.check(distances.shape, query_pids, query_camids, gallery_pids, gallery_camids)
    blocks = ((rows, distances[rows]) for rows in row_blocks(*distances.shape))
    return _rank(blocks, labels, max_rank)


def rank_features(
    query: ArrayLike,
    gallery: ArrayLike,
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    max_rank: int = 50,
    block: int | None = None,
) -> RankMetrics:
    """Computes `rank_metrics` from embeddings, by squared Euclidean distance.

    Distances are computed in blocks of queries: memory beyond the features is one block. Embeddings
    are not normalized here.

    Args:
        query: embeddings [Q, E].
        gallery: embeddings [G, E].
        query_pids: see `rank_metrics`, as are the other labels and `max_rank`.
        query_camids: cameras [Q] or None.
        gallery_pids: identities [G].
        gallery_camids: cameras [G] or None.
        max_rank: length of the CMC curve.
        block: queries in a block; by default as many as fit 128 MiB of distances.

    Returns:
        Means over all valid queries, and the values of each query.

    Raises:
        TypeError: features are not floating-point numbers, or labels are not integers.
        ValueError: shapes do not agree.
        InputError: a feature is not finite, or no query has a match.
    """
    query, gallery = check_pair(query, gallery)
    shape = (len(query), len(gallery))
    labels = Labels.check(shape, query_pids, query_camids, gallery_pids, gallery_camids)
    return _rank(distance_blocks(query, gallery, block), labels, max_rank)


def rank_blocks(
    blocks: Iterable[tuple[slice, np.ndarray]],
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    max_rank: int = 50,
) -> RankMetrics:
    """Computes `rank_metrics` from distances in blocks of queries, such as `rerank_blocks`.

    Args:
        blocks: slices of the queries, in order, and their distances [block, G].
        query_pids: see `rank_metrics`, as are the other labels and `max_rank`.
        query_camids: cameras [Q] or None.
        gallery_pids: identities [G].
        gallery_camids: cameras [G] or None.
        max_rank: length of the CMC curve.

    Returns:
        Means over all valid queries, and the values of each query.

    Raises:
        TypeError: labels are not integers.
        ValueError: shapes do not agree.
        InputError: a distance is NaN, or no query has a match.
    """
    shape = (np.size(query_pids), np.size(gallery_pids))
    labels = Labels.check(shape, query_pids, query_camids, gallery_pids, gallery_camids)
    return _rank(blocks, labels, max_rank)


def _rank(blocks: Iterable[tuple[slice, np.ndarray]], labels: Labels, max_rank: int) -> RankMetrics:
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}.")
    ranks = [
        match_ranks(row, matches, dropped)
        for _, row, matches, dropped in labels.iterate_queries(blocks)
    ]
    n_matches = np.array([len(r) for r in ranks])
    valid = n_matches > 0
    labels.check_matches()
    ap, ap_official, inp = np.full((3, len(ranks)), np.nan)
    first = np.full(len(ranks), -1)
    ap[valid], ap_official[valid], inp[valid], first[valid] = _metrics_of_ranks(
        np.concatenate(ranks), n_matches[valid]
    )
    # Ranks beyond the curve fall into the last bin, which is removed.
    counts = np.bincount(np.minimum(first[valid], max_rank + 1), minlength=max_rank + 2)
    return RankMetrics(
        cmc=np.cumsum(counts[1:-1]) / valid.sum(),
        mean_ap=float(ap[valid].mean()),
        mean_ap_official=float(ap_official[valid].mean()),
        mean_inp=float(inp[valid].mean()),
        n_valid_queries=int(valid.sum()),
        ap=ap,
        ap_official=ap_official,
        inp=inp,
        first_match_rank=first,
    )


def match_ranks(
    row: np.ndarray, matches: np.ndarray, dropped: np.ndarray, sort_from: int = 256
) -> np.ndarray:
    """Computes the 1-based ranks of a query's matches, sorted.

    Args:
        row: distances of the query [G].
        matches: positions in the row of the n matches, ascending.
        dropped: positions in the row of images that do not count, ascending.
        sort_from: from this number of matches on the row is sorted once, which is then cheaper than
            one comparison of the row per match.

    Returns:
        Ranks [n].
    """
    if len(matches) < sort_from:
        # A stable order: equal distances at lower indices come first.
        ranks = np.array(
            [
                np.count_nonzero(row[:i] <= row[i]) + np.count_nonzero(row[i + 1 :] < row[i])
                for i in matches
            ],
            np.int64,
        )
    else:
        order = np.argsort(row, kind="stable")
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        ranks = position[matches]
    if len(dropped):
        near, far = row[dropped][:, None], row[matches][None, :]
        in_front = (near < far) | ((near == far) & (dropped[:, None] < matches[None, :]))
        ranks = ranks - in_front.sum(axis=0)
    return np.sort(ranks) + 1


def _metrics_of_ranks(
    ranks: np.ndarray, n_matches: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Computes step AP, official AP, INP and first rank from the concatenated ranks of queries."""
    ends = np.cumsum(n_matches)
    starts = ends - n_matches
    before = np.arange(len(ranks)) - np.repeat(starts, n_matches)  # earlier matches: i - 1
    precision = (before + 1) / ranks
    # At rank 1 the precision before the match is 1 by definition.
    precision_before = np.where(ranks == 1, 1.0, before / np.maximum(ranks - 1, 1))
    ap = np.add.reduceat(precision, starts) / n_matches
    ap_before = np.add.reduceat(precision_before, starts) / n_matches
    return ap, (ap + ap_before) / 2, n_matches / ranks[ends - 1], ranks[starts]
