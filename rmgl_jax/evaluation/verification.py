"""Verification: is it the same person? True positive rates at low false positive rates (ROC).

The pairs are those of the ranking protocol: every query with every gallery image that is not
dropped for it. A pair is accepted if its distance is below a threshold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rmgl_jax.evaluation.distances import check_distances, row_blocks
from rmgl_jax.evaluation.labels import Labels

FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
# Distances that gather, beside those needed, before they are cut down to these.
_BUFFER = 2**22


@dataclass(frozen=True, eq=False)
class VerificationMetrics:
    """Points of the ROC curve."""

    false_positive_rates: np.ndarray
    """The rates asked for: largest share of pairs of different persons that may be accepted."""
    true_positive_rates: np.ndarray
    """Share of pairs of the same person that is accepted then."""
    thresholds: np.ndarray
    """Distances below which a pair is accepted."""
    n_positive: int
    """Pairs of the same person."""
    n_negative: int
    """Pairs of different persons."""


def verification_metrics(
    distances: ArrayLike,
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    false_positive_rates: Sequence[float] = FALSE_POSITIVE_RATES,
) -> VerificationMetrics:
    """True positive rates at the given false positive rates.

    Args:
        distances: [Q, G], smaller is more alike.
        query_pids: identities [Q], integers.
        query_camids: cameras [Q]; None, with `gallery_camids`, for no same-camera rule.
        gallery_pids: identities [G]; -1 is dropped, 0 kept.
        gallery_camids: cameras [G] or None.
        false_positive_rates: at least 0 and below 1.

    Returns:
        The points of the ROC curve.

    Raises:
        TypeError: distances are not floating-point numbers, or labels not integers.
        ValueError: shapes do not agree, a distance is NaN, a rate is out of range, or there are
            no pairs of the same person or none of different persons.
    """
    distances = check_distances(distances)
    labels = query_pids, query_camids, gallery_pids, gallery_camids
    Labels.check(distances.shape, *labels)
    blocks = ((rows, distances[rows]) for rows in row_blocks(*distances.shape))
    return verification_blocks(blocks, *labels, false_positive_rates)


def verification_blocks(
    blocks: Iterable[tuple[slice, np.ndarray]],
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    false_positive_rates: Sequence[float] = FALSE_POSITIVE_RATES,
) -> VerificationMetrics:
    """`verification_metrics` of distances in blocks, as from `distance_blocks`.

    No more distances are kept than the largest rate needs, about that share of Q x G.

    Args:
        blocks: slices of the queries, in order, and their distances [block, G].
        query_pids: see `verification_metrics`, as are the other arguments.
        query_camids: cameras [Q] or None.
        gallery_pids: identities [G].
        gallery_camids: cameras [G] or None.
        false_positive_rates: at least 0 and below 1.

    Returns:
        The points of the ROC curve.

    Raises:
        TypeError: labels are not integers.
        ValueError: see `verification_metrics`.
    """
    rates = np.asarray(false_positive_rates, np.float64)
    if rates.ndim != 1 or not ((rates >= 0) & (rates < 1)).all():
        raise ValueError(
            f"False positive rates must be at least 0 and below 1, got {false_positive_rates}."
        )
    shape = (len(query_pids), len(gallery_pids))
    labels = Labels.check(shape, query_pids, query_camids, gallery_pids, gallery_camids)
    # Known before any distance is: how many negatives there are, so how many of them can matter.
    n_negative = labels.n_negative_pairs
    if n_negative == 0:
        raise ValueError("There is no pair of different persons, so that no threshold can be set.")
    # The share of some rates, such as 0.29 of 100, falls just below the whole number.
    accepted = np.floor(rates * n_negative + 1e-9).astype(np.int64)
    limit = int(accepted.max(initial=0)) + 1

    positives, negatives, waiting = [], [], 0
    for _, row, matches, dropped in labels.walk(blocks):
        positives.append(row[matches])
        negatives.append(np.delete(row, np.concatenate([matches, dropped])))
        waiting += len(negatives[-1])
        if waiting > limit + _BUFFER:
            negatives, waiting = [_smallest(negatives, limit)], 0
    positives = np.concatenate(positives)
    if not len(positives):
        raise ValueError("There is no pair of the same person in the query and the gallery.")
    thresholds = np.sort(_smallest(negatives, limit))[accepted]
    return VerificationMetrics(
        false_positive_rates=rates,
        true_positive_rates=(positives[:, None] < thresholds[None, :]).mean(axis=0),
        thresholds=thresholds,
        n_positive=len(positives),
        n_negative=n_negative,
    )


def _smallest(parts: list[np.ndarray], count: int) -> np.ndarray:
    values = np.concatenate(parts)
    return values if len(values) <= count else np.partition(values, count - 1)[:count]
