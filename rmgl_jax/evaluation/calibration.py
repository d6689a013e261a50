"""Score thresholds for "same person?", measured on labeled images at chosen false positive rates.

The pairs are those of the ranking protocol, without distractors: every query with every gallery
image of another person, and with those of the same person from other cameras. Pairs of one person
depend on each other, so confidence intervals come from resampling persons, not pairs.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from data_prep.errors import InputError
from data_prep.json_text import parse_json
from rmgl_jax.evaluation.distances import row_blocks
from rmgl_jax.evaluation.labels import Labels

CALIBRATION_RATES = (1e-2, 1e-3, 1e-4)
"""False positive rates that are calibrated by default."""
MIN_PERSON_PAIRS = 10
"""A rate is resolved if the false positives at it are of at least so many pairs of persons."""
_CONFIDENCE = 0.95
_Columns: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, with 95 % confidence intervals (low, high)."""

    fpr: float
    """Largest share of pairs of different persons with a score above the threshold."""
    threshold: float
    """Cosine similarity above which a pair is taken for the same person."""
    threshold_interval: tuple[float, float]
    """Confidence interval of the threshold."""
    tpr: float
    """Share of pairs of the same person with a score above the threshold."""
    tpr_interval: tuple[float, float]
    """Confidence interval of `tpr`."""


@dataclass(frozen=True)
class Calibration:
    """Score thresholds for "same person?" at chosen false positive rates.

    They hold for one embedding and for images such as those they were measured on. Other cameras
    require a calibration of their own.
    """

    dataset: str
    """Dataset of the labeled images."""
    digest: str
    """`Embedder.digest` of the embedding."""
    flip: bool
    """Embeddings were averaged with those of the mirrored images."""
    dim: int | None
    """Width of the projection; None is the whole embedding."""
    n_persons: int
    """Number of persons among the queries and gallery images."""
    n_positive: int
    """Number of pairs of the same person."""
    n_negative: int
    """Number of pairs of different persons."""
    points: tuple[OperatingPoint, ...]
    """Thresholds, from the greatest false positive rate to the smallest."""
    unresolved: tuple[float, ...] = ()
    """False positive rates that were asked for, but for which the images are too few."""

    def point(self, fpr: float) -> OperatingPoint:
        """Returns the threshold of a false positive rate with its confidence intervals.

        Raises:
            InputError: the rate was not measured, or the images are too few for it.
        """
        for point in self.points:
            if np.isclose(point.fpr, fpr, rtol=1e-9, atol=0):
                return point
        reason = "was not measured"
        if any(np.isclose(rate, fpr, rtol=1e-9, atol=0) for rate in self.unresolved):
            reason = f"cannot be resolved by the {self.n_persons:,} persons of {self.dataset}"
        measured = ", ".join(f"{point.fpr:g}" for point in self.points)
        raise InputError(
            f"The false positive rate {fpr:g} {reason}; the model has thresholds for {measured}."
        )

    def threshold(self, fpr: float) -> float:
        """Returns the score above which two images are taken for the same person.

        Raises:
            InputError: see `point`.
        """
        return self.point(fpr).threshold

    def applies_to(self, digest: str, flip: bool) -> bool:
        """Tells whether scores of an embedding (`Embedder.digest` and `flip`) are on this scale."""
        return (self.digest, self.flip) == (digest, flip)

    def to_json(self) -> str:
        """Returns the calibration as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """Inverts `to_json`.

        Raises:
            InputError: the text is not a calibration.
        """
        try:
            fields = parse_json(text)
            points = []
            for point in fields["points"]:
                for name in ("threshold_interval", "tpr_interval"):
                    point[name] = tuple(point[name])
                points.append(OperatingPoint(**point))
            lists = {"points": tuple(points), "unresolved": tuple(fields["unresolved"])}
            return cls(**fields | lists)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The text is not a calibration: {error!r}.") from error


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Scores of pairs in falling order, with the persons of their two images."""

    scores: np.ndarray
    queries: np.ndarray
    gallery: np.ndarray

    @classmethod
    def sort(cls, parts: Sequence[_Columns]) -> "_Pairs":
        scores, queries, gallery = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(-scores, kind="stable")
        return cls(scores[order], queries[order], gallery[order])


def check_rates(rates: Sequence[float]) -> tuple[float, ...]:
    """Returns false positive rates without repetitions, the greatest first.

    Raises:
        InputError: there are none, or one is not above 0 and below 1.
    """
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise InputError(f"False positive rates must be above 0 and below 1, got {tuple(rates)}.")
    return tuple(sorted({float(rate) for rate in rates}, reverse=True))


def calibrate(
    queries: np.ndarray,
    gallery: np.ndarray,
    query_pids: ArrayLike,
    query_camids: ArrayLike | None,
    gallery_pids: ArrayLike,
    gallery_camids: ArrayLike | None,
    rates: Sequence[float] = CALIBRATION_RATES,
    *,
    dataset: str = "",
    digest: str = "",
    flip: bool = True,
    dim: int | None = None,
    replicates: int = 400,
    seed: int = 0,
) -> Calibration:
    """Measures score thresholds at false positive rates, with 95 % confidence intervals.

    At a rate f the threshold is the smallest score with at most f of the pairs of different persons
    above it. The intervals are percentiles of the bootstrap over persons: with a person drawn w
    times, each of its pairs with a person drawn v times counts w * v times, and each pair of its
    own images w times.

    Args:
        queries: unit embeddings [Q, E].
        gallery: unit embeddings [G, E].
        query_pids: identities [Q]. Images with negative pids (junk) take no part, nor do those with
            pid 0 (distractors), unless a query has it: then it is a person.
        query_camids: cameras [Q]. None for both query and gallery takes pairs of one camera, too.
        gallery_pids: identities [G].
        gallery_camids: cameras [G] or None.
        rates: false positive rates, above 0 and below 1.
        dataset: name of the dataset, recorded in the result, as are `digest`, `flip` and `dim`.
        digest: `Embedder.digest`.
        flip: of the embedder.
        dim: of the embedder.
        replicates: number of bootstrap samples.
        seed: seed of the samples.

    Raises:
        InputError: a rate is out of range, there are no pairs of the same or of different persons,
            or the images are too few for all of the rates.
        TypeError: labels are not integers.
        ValueError: shapes do not agree.
    """
    rates = check_rates(rates)
    all_query_pids, all_gallery_pids = np.asarray(query_pids), np.asarray(gallery_pids)
    lowest = 0 if (all_query_pids == 0).any() else 1
    kept_queries, kept_gallery = all_query_pids >= lowest, all_gallery_pids >= lowest
    persons, codes = np.unique(
        np.concatenate([all_query_pids[kept_queries], all_gallery_pids[kept_gallery]]),
        return_inverse=True,
    )
    query_persons, gallery_persons = np.split(codes, [int(kept_queries.sum())])
    queries, gallery = queries[kept_queries], gallery[kept_gallery]
    # Persons by their number from 0 on stand for the pids: none of them is junk.
    labels = Labels.check(
        (len(queries), len(gallery)),
        query_persons,
        None if query_camids is None else np.asarray(query_camids)[kept_queries],
        gallery_persons,
        None if gallery_camids is None else np.asarray(gallery_camids)[kept_gallery],
    )
    n_negative = labels.n_negative_pairs
    if not n_negative:
        raise InputError(f"{dataset or 'The set'} has no pair of images of different persons.")
    # A sample may have fewer pairs of high scores than the set.
    limit = min(n_negative, int(2.5 * rates[0] * n_negative) + 10_000)
    positives, negatives = _score_pairs(queries, gallery, labels, query_persons, limit)
    if not len(positives.scores):
        raise InputError(f"{dataset or 'The set'} has no pair of images of the same person.")

    resolved = [rate for rate in rates if _is_resolved(negatives, rate * n_negative)]
    if not resolved:
        raise InputError(
            f"{len(persons):,} persons with {n_negative:,} pairs of images are too few for a false "
            f"positive rate of {rates[0]:g}: fewer than {MIN_PERSON_PAIRS} pairs of persons would "
            "be mistaken."
        )
    n_queries, n_gallery = (
        np.bincount(numbers, minlength=len(persons)) for numbers in (query_persons, gallery_persons)
    )
    random = np.random.default_rng(seed)
    ones = np.ones(len(persons))
    everyone = _measure(resolved, positives, negatives, n_queries, n_gallery, ones)
    samples = np.array(
        [
            _measure(resolved, positives, negatives, n_queries, n_gallery, weights)
            for weights in random.multinomial(len(persons), ones / len(persons), replicates)
        ]
    )
    tails = [50 * (1 - _CONFIDENCE), 100 - 50 * (1 - _CONFIDENCE)]
    low, high = np.percentile(samples, tails, axis=0)
    points = [
        OperatingPoint(
            rate,
            float(everyone[0, i]),
            (float(low[0, i]), float(high[0, i])),
            float(everyone[1, i]),
            (float(low[1, i]), float(high[1, i])),
        )
        for i, rate in enumerate(resolved)
    ]
    return Calibration(
        dataset=dataset,
        digest=digest,
        flip=flip,
        dim=dim,
        n_persons=len(persons),
        n_positive=len(positives.scores),
        n_negative=n_negative,
        points=tuple(points),
        unresolved=tuple(rate for rate in rates if rate not in resolved),
    )


def _score_pairs(
    queries: np.ndarray,
    gallery: np.ndarray,
    labels: Labels,
    query_persons: np.ndarray,
    limit: int,
    buffer: int = 2**22,
) -> tuple[_Pairs, _Pairs]:
    """Computes the scores of all pairs of one person, and the `limit` highest of two persons."""
    gallery_persons = np.empty(len(gallery), np.int32)
    gallery_persons[labels.order] = labels.sorted_pids
    blocks = ((rows, queries[rows] @ gallery.T) for rows in row_blocks(len(queries), len(gallery)))
    positives: list[_Columns] = []
    negatives: list[_Columns] = []
    collected = 0
    for query, row, matches, dropped in labels.iterate_queries(blocks):
        person = np.int32(query_persons[query])
        of_others = np.delete(np.arange(len(row)), np.concatenate([matches, dropped]))
        for parts, chosen in ((positives, matches), (negatives, of_others)):
            own = np.full(len(chosen), person)
            parts.append((row[chosen], own, gallery_persons[chosen]))
        collected += len(of_others)
        if collected > limit + buffer:
            negatives, collected = [_highest(negatives, limit)], limit
    return _Pairs.sort(positives), _Pairs.sort([_highest(negatives, limit)])


def _highest(parts: Sequence[_Columns], limit: int) -> _Columns:
    scores, queries, gallery = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    if len(scores) > limit:
        chosen = np.argpartition(-scores, limit - 1)[:limit]
        scores, queries, gallery = scores[chosen], queries[chosen], gallery[chosen]
    return scores, queries, gallery


def _is_resolved(negatives: _Pairs, accepted: float) -> bool:
    """Tells whether the false positives are of enough different pairs of persons."""
    count = int(accepted + 1e-9)
    first, second = negatives.queries[:count], negatives.gallery[:count]
    pairs = np.minimum(first, second).astype(np.int64) << 32 | np.maximum(first, second)
    return len(np.unique(pairs)) >= MIN_PERSON_PAIRS


def _measure(
    rates: Sequence[float],
    positives: _Pairs,
    negatives: _Pairs,
    n_queries: np.ndarray,
    n_gallery: np.ndarray,
    weights: np.ndarray,
) -> np.ndarray:
    """Computes thresholds and true positive rates, [2, R], with a weight of each person."""
    weights = weights.astype(np.float64)
    # All pairs of images of different persons, from the numbers of images of each person.
    total = (weights @ n_queries) * (weights @ n_gallery) - (weights**2) @ (n_queries * n_gallery)
    accepted = np.cumsum(weights[negatives.queries] * weights[negatives.gallery])
    # The first pair with which the share exceeds the rate: scores above its own are accepted.
    first = np.searchsorted(accepted, np.asarray(rates) * total * (1 + 1e-12), "right")
    thresholds = negatives.scores[np.minimum(first, len(negatives.scores) - 1)]
    counted = np.concatenate([[0.0], np.cumsum(weights[positives.queries])])
    above = np.searchsorted(-positives.scores, -thresholds, "left")
    return np.stack([thresholds, counted[above] / max(counted[-1], 1)])
