"""CMC, mAP (both definitions) and mINP of a gallery ranked for each query.

The protocol is Market-1501's: for each query the gallery images with pid -1 (junk) and those with
the query's own pid and camera are dropped; pid 0 (distractors) stays as negatives.

Nothing is sorted. The measures need only the ranks of a query's few true matches, and the rank of
a match is one more than the number of kept gallery images in front of it: one comparison of a row
of distances per match, which runs at the speed of memory.
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

# From so many images of one identity on, sorting the row once is cheaper than counting for each.
_SORT_FROM = 256


@dataclass(frozen=True, eq=False)
class RankMetrics:
    """How well a gallery is ranked. All shares are in [0, 1].

    The means are over the valid queries: those that have a match left in the gallery.
    """

    cmc: np.ndarray
    """[max_rank] share of queries whose first match has rank 1, at most 2, at most 3, ..."""
    mean_ap: float
    """mAP, step: AP = mean_i of i / r_i, for the rank r_i of the i-th match."""
    mean_ap_official: float
    """mAP, official: the trapezoid of Market-1501's own code; AP = mean_i of (i / r_i + p_i) / 2,
    with p_i = (i - 1) / (r_i - 1), or 1 if r_i = 1. Never larger than the step one."""
    mean_inp: float
    """mINP: mean of (number of matches) / (rank of the last match)."""
    n_valid_queries: int
    """Queries with at least one match."""
    ap: np.ndarray
    """[Q] step AP of each query; NaN where it has no match."""
    ap_official: np.ndarray
    """[Q] official AP of each query; NaN where it has no match."""
    inp: np.ndarray
    """[Q] INP of each query; NaN where it has no match."""
    first_match_rank: np.ndarray
    """[Q] 1-based rank of each query's first match; -1 where it has no match."""


def rank_metrics(
    distances: ArrayLike,
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    max_rank: int = 50,
) -> RankMetrics:
    """Evaluates a ranking by distance. Among equal distances the lower gallery index comes first.

    Args:
        distances: [Q, G], smaller is more alike. Infinity is allowed, NaN is not.
        query_pids: identities [Q], integers.
        query_camids: cameras [Q], integers; None, with `gallery_camids`, for no same-camera rule.
        gallery_pids: identities [G]; -1 is dropped, 0 kept.
        gallery_camids: cameras [G] or None.
        max_rank: length of the CMC curve.

    Returns:
        The measures, over all valid queries and of each query.

    Raises:
        TypeError: distances are not floating-point numbers, or labels not integers.
        ValueError: shapes do not agree, a distance is NaN, or no query has a match.
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
    """`rank_metrics` of the squared Euclidean distances of embeddings, in blocks of queries.

    The whole Q x G never exists: memory beyond the features is one block of distances. Embeddings
    are taken as they are; the protocol wants them L2-normalized.

    Args:
        query: embeddings [Q, E].
        gallery: embeddings [G, E].
        query_pids: see `rank_metrics`, as are the other labels and `max_rank`.
        query_camids: cameras [Q] or None.
        gallery_pids: identities [G].
        gallery_camids: cameras [G] or None.
        max_rank: length of the CMC curve.
        block: queries of a block; None chooses blocks of about 128 MiB of distances.

    Returns:
        The measures, over all valid queries and of each query.

    Raises:
        TypeError: features are not floating-point numbers, or labels not integers.
        ValueError: shapes do not agree, a feature is not finite, or no query has a match.
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
    """`rank_metrics` of distances that come in blocks of queries, as from `rerank_blocks`.

    Args:
        blocks: slices of the queries, in order, and their distances [block, G].
        query_pids: see `rank_metrics`, as are the other labels and `max_rank`.
        query_camids: cameras [Q] or None.
        gallery_pids: identities [G].
        gallery_camids: cameras [G] or None.
        max_rank: length of the CMC curve.

    Returns:
        The measures, over all valid queries and of each query.

    Raises:
        TypeError: labels are not integers.
        ValueError: shapes do not agree, a distance is NaN, or no query has a match.
    """
    shape = (len(query_pids), len(gallery_pids))
    labels = Labels.check(shape, query_pids, query_camids, gallery_pids, gallery_camids)
    return _rank(blocks, labels, max_rank)


def _rank(blocks: Iterable[tuple[slice, np.ndarray]], labels: Labels, max_rank: int) -> RankMetrics:
    if max_rank < 1:
        raise ValueError(f"max_rank must be at least 1, got {max_rank}.")
    ranks = [
        _match_ranks(row, matches, dropped) for _, row, matches, dropped in labels.walk(blocks)
    ]
    n_matches = np.array([len(r) for r in ranks])
    valid = n_matches > 0
    if not valid.any():
        raise ValueError(
            f"None of the {len(ranks)} queries has a match in the gallery: no gallery image of the "
            "same identity is left after junk and images of the query's own camera are dropped."
        )
    ap, ap_official, inp = np.full((3, len(ranks)), np.nan)
    first = np.full(len(ranks), -1)
    ap[valid], ap_official[valid], inp[valid], first[valid] = _measures(
        np.concatenate(ranks), n_matches[valid]
    )
    # Ranks beyond the curve fall into its last bin, which is cut off.
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


def _match_ranks(row: np.ndarray, matches: np.ndarray, dropped: np.ndarray) -> np.ndarray:
    """Sorted 1-based ranks of `matches` in a row of distances that lacks the `dropped`."""
    if len(matches) < _SORT_FROM:
        # Equal distances at lower indices are in front, at higher ones behind: a stable order.
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


def _measures(
    ranks: np.ndarray, n_matches: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Step AP, official AP, INP and first rank of queries, from their sorted ranks in one array."""
    ends = np.cumsum(n_matches)
    starts = ends - n_matches
    before = np.arange(len(ranks)) - np.repeat(starts, n_matches)  # matches in front: i - 1
    precision = (before + 1) / ranks
    # Where the match is the very first image the other precision is 1 by definition.
    precision_before = np.where(ranks == 1, 1.0, before / np.maximum(ranks - 1, 1))
    ap = np.add.reduceat(precision, starts) / n_matches
    ap_before = np.add.reduceat(precision_before, starts) / n_matches
    return ap, (ap + ap_before) / 2, n_matches / ranks[ends - 1], ranks[starts]
