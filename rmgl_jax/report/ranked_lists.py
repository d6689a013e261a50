"""Ranked lists of the queries with the lowest, median and highest AP."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmgl_jax.data.split import Split
from rmgl_jax.evaluation.distances import distance_blocks
from rmgl_jax.evaluation.labels import Labels

Group = Literal["worst", "median", "best"]


@dataclass(frozen=True)
class Hit:
    """A gallery image in a ranked list."""

    rank: int
    """Rank from 1, without junk and without the query's identity in its own camera."""
    index: int
    """Index in the gallery."""
    match: bool
    """The image is of the query's identity."""
    distance: float
    """Euclidean distance of the unit embeddings."""


@dataclass(frozen=True)
class RankedList:
    """A query and its nearest gallery images."""

    query: int
    """Index in the query split."""
    group: Group
    """Group for which the query was chosen."""
    position: int
    """Position among all valid queries by rising AP, from 1."""
    ap: float
    """AP (step) of the query."""
    n_matches: int
    """Number of gallery images that match."""
    hits: tuple[Hit, ...]
    """Nearest gallery images, by distance."""


def choose_queries(ap: np.ndarray, group_size: int = 12) -> list[tuple[Group, int, int]]:
    """Chooses the queries with the lowest, median and highest AP.

    Args:
        ap: AP [Q]; NaN for queries without a match, which are never chosen.
        group_size: queries of each group; fewer if there are not three times as many.

    Returns:
        Group, position by rising AP from 1, and index of each query, by rising AP; no query twice.
    """
    order = np.argsort(ap, kind="stable")[: np.count_nonzero(~np.isnan(ap))]
    valid = len(order)
    size = min(group_size, -(-valid // 3))
    worst_end, best_start = size, max(size, valid - size)
    middle = (worst_end + best_start - size + 1) // 2
    positions: dict[Group, range] = {
        "worst": range(worst_end),
        "median": range(max(worst_end, middle), min(middle + size, best_start)),
        "best": range(best_start, valid),
    }
    return [(group, i + 1, int(order[i])) for group, chosen in positions.items() for i in chosen]


def ranked_lists(
    query: Split,
    gallery: Split,
    embeddings: tuple[np.ndarray, np.ndarray],
    ap: np.ndarray,
    group_size: int = 12,
    length: int = 10,
) -> list[RankedList]:
    """Ranks the gallery for the chosen queries, by rising AP.

    Args:
        query: Q images.
        gallery: G images.
        embeddings: embeddings of both, [Q, E] and [G, E].
        ap: AP of every query, [Q].
        group_size: see `choose_queries`.
        length: images of a list; fewer if the gallery has not as many for a query.
    """
    chosen = choose_queries(ap, group_size)
    rows = np.array([row for _, _, row in chosen], int)
    camids = None if query.camids is None else query.camids[rows]
    labels = Labels.check(
        (len(rows), len(gallery)), query.pids[rows], camids, gallery.pids, gallery.camids
    )
    kept = np.arange(len(gallery)) if labels.kept is None else labels.kept
    lists = []
    blocks = distance_blocks(embeddings[0][rows], embeddings[1])
    for number, distances, matches, dropped in labels.iterate_queries(blocks):
        group, position, row = chosen[number]
        order = np.argsort(distances, kind="stable")
        order = order[~np.isin(order, dropped)][:length]
        hits = [
            Hit(rank, int(kept[i]), bool(i in matches), float(distances[i]) ** 0.5)
            for rank, i in enumerate(order, 1)
        ]
        lists.append(RankedList(row, group, position, float(ap[row]), len(matches), tuple(hits)))
    return lists
