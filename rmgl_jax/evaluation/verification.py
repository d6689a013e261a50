"""Verification: true positive rates at low false positive rates (ROC curve).

The pairs are those of the ranking protocol: every query with every gallery image that is not
dropped for it. A pair is accepted as the same person if its distance is below a threshold.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from data_prep.errors import InputError
from rmgl_jax.evaluation.distances import check_distances, row_blocks
from rmgl_jax.evaluation.labels import Labels

FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Rates that are reported by default."""


@dataclass(frozen=True, eq=False)
class VerificationMetrics:
    """Points of the ROC curve, [R] each."""

    false_positive_rates: np.ndarray
    """Largest share of pairs of different persons that may be accepted."""
    true_positive_rates: np.ndarray
    """Share of pairs of the same person that is accepted."""
    thresholds: np.ndarray
    """Distance below which a pair is accepted."""
    n_positive: int
    """Number of pairs of the same person."""
    n_negative: int
    """Number of pairs of different persons."""


def verification_metrics(
    distances: ArrayLike,
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    false_positive_rates: Sequence[float] = FALSE_POSITIVE_RATES,
) -> VerificationMetrics:
    """Computes true positive rates at the given false positive rates.

    Args:
        distances: [Q, G], smaller is more similar.
        query_pids: identities [Q], integers.
        query_camids: cameras [Q]. None for both query and gallery disables the same-camera rule.
        gallery_pids: identities [G]; -1 (junk) is dropped, 0 (distractors) stays.
        gallery_camids: cameras [G] or None.
        false_positive_rates: R rates, at least 0 and below 1.

    Returns:
        R points of the ROC curve.

    Raises:
        TypeError: distances are not floating-point numbers, or labels are not integers.
        ValueError: shapes do not agree, or a rate is out of range.
        InputError: a distance is NaN, or there is no pair of the same person or none of different
            persons.
    """
    matrix = check_distances(distances)
    labels = query_pids, query_camids, gallery_pids, gallery_camids
    Labels.check(matrix.shape, *labels)
    blocks = ((rows, matrix[rows]) for rows in row_blocks(*matrix.shape))
    return verification_blocks(blocks, *labels, false_positive_rates)


def verification_blocks(
    blocks: Iterable[tuple[slice, np.ndarray]],
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    false_positive_rates: Sequence[float] = FALSE_POSITIVE_RATES,
    buffer: int = 2**22,
) -> VerificationMetrics:
    """Computes `verification_metrics` from distances in blocks, such as those of `distance_blocks`.

    Of the distances of different persons only those that the largest rate needs are kept, about
    that share of Q x G.

    Args:
        blocks: slices of the queries, in order, and their distances [block, G].
        query_pids: see `verification_metrics`, as are the other arguments.
        query_camids: cameras [Q] or None.
        gallery_pids: identities [G].
        gallery_camids: cameras [G] or None.
        false_positive_rates: R rates, at least 0 and below 1.
        buffer: distances collected in addition to those needed, before the largest are dropped.

    Returns:
        R points of the ROC curve.

    Raises:
        TypeError: labels are not integers.
        ValueError: see `verification_metrics`.
        InputError: see `verification_metrics`.
    """
    rates = np.asarray(false_positive_rates, np.float64)
    if rates.ndim != 1 or not ((rates >= 0) & (rates < 1)).all():
        raise ValueError(
            f"False positive rates must be at least 0 and below 1, got {false_positive_rates}."
        )
    shape = (np.size(query_pids), np.size(gallery_pids))
    labels = Labels.check(shape, query_pids, query_camids, gallery_pids, gallery_camids)
    labels.check_negatives()
    n_negative = labels.n_negative_pairs
    # 0.29 * 100 is just below 29.
    accepted = np.floor(rates * n_negative + 1e-9).astype(np.int64)
    limit = int(accepted.max(initial=0)) + 1

    positive_parts, negatives, collected = [], [], 0
    for _, row, matches, dropped in labels.iterate_queries(blocks):
        positive_parts.append(row[matches])
        negatives.append(np.delete(row, np.concatenate([matches, dropped])))
        collected += len(negatives[-1])
        if collected > limit + buffer:
            negatives, collected = [_smallest(negatives, limit)], 0
    positives = np.concatenate(positive_parts)
    if not len(positives):
        raise InputError("Query and gallery have no pair of the same person.")
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
