"""Ranked lists of chosen queries: the worst, the median and the best by AP."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rmgl_jax.data.split import Split
from rmgl_jax.evaluation.distances import distance_blocks
from rmgl_jax.evaluation.labels import Labels

Group = Literal["worst", "median", "best"]


@dataclass(frozen=True)
class Hit:
    """A gallery image in a list."""

    rank: int
    """From 1, junk and the query's identity in its own camera left out."""
    index: int
    """In the gallery."""
    match: bool
    """Whether it is of the query's identity."""
    distance: float
    """Euclidean, of unit embeddings."""


@dataclass(frozen=True)
class RankedList:
    """A query and the nearest gallery images."""

    query: int
    """In the query split."""
    group: Group
    """Why it was chosen."""
    place: int
    """Among all valid queries, from 1: the one with the smallest AP."""
    ap: float
    """Step AP of the query."""
    matches: int
    """Images of its identity that could be found."""
    hits: tuple[Hit, ...]


def choose_queries(ap: np.ndarray, each: int = 12) -> list[tuple[Group, int, int]]:
    """The queries of the smallest, the middle and the greatest AP, by rising AP.

    Args:
        ap: [Q] AP; NaN where a query has no match, which is never chosen.
        each: how many of a kind; fewer where there are not three times as many.

    Returns:
        Group, place by AP from 1, and query; no query twice.
    """
    order = np.argsort(ap, kind="stable")[: np.count_nonzero(~np.isnan(ap))]
    valid = len(order)
    each = min(each, -(-valid // 3))
    worst_end, best_start = each, max(each, valid - each)
    middle = (worst_end + best_start - each + 1) // 2
    places: dict[Group, range] = {
        "worst": range(worst_end),
        "median": range(max(worst_end, middle), min(middle + each, best_start)),
        "best": range(best_start, valid),
    }
    return [(group, i + 1, int(order[i])) for group, chosen in places.items() for i in chosen]


def ranked_lists(
    query: Split,
    gallery: Split,
    embeddings: tuple[np.ndarray, np.ndarray],
    ap: np.ndarray,
    each: int = 12,
    length: int = 10,
) -> list[RankedList]:
    """Lists of the chosen queries, by rising AP.

    Args:
        query: Q images.
        gallery: G images.
        embeddings: of both, [Q, E] and [G, E].
        ap: [Q] AP of every query.
        each: see `choose_queries`.
        length: images of a list; fewer if the gallery has not as many for a query.
    """
    chosen = choose_queries(ap, each)
    rows = np.array([row for _, _, row in chosen], int)
    camids = None if query.camids is None else query.camids[rows]
    labels = Labels.check(
        (len(rows), len(gallery)), query.pids[rows], camids, gallery.pids, gallery.camids
    )
    places = np.arange(len(gallery)) if labels.kept is None else labels.kept
    lists = []
    blocks = distance_blocks(embeddings[0][rows], embeddings[1])
    for number, distances, matches, dropped in labels.iterate_queries(blocks):
        group, place, row = chosen[number]
        order = np.argsort(distances, kind="stable")
        order = order[~np.isin(order, dropped)][:length]
        hits = [
            Hit(rank, int(places[i]), bool(i in matches), float(distances[i]) ** 0.5)
            for rank, i in enumerate(order, 1)
        ]
        lists.append(RankedList(row, group, place, float(ap[row]), len(matches), tuple(hits)))
    return lists
