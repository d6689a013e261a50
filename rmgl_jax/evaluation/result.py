"""The result of an evaluation with its dataset and settings, as JSON and as a table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.errors import InputError
from rmgl_jax import checked_json
from rmgl_jax.evaluation.ranking import RankMetrics
from rmgl_jax.evaluation.verification import VerificationMetrics
from rmgl_jax.field_checks import check_fields

PaperNumbers = Mapping[str, Mapping[str, float]]
"""Published numbers in percent, by dataset (with " re-ranked" after it) and measure."""

_PER_QUERY = ("ap", "ap_official", "inp", "first_match_rank")


@dataclass(frozen=True)
class Reranked:
    """Metrics with k-reciprocal re-ranking, and its parameters (see `rerank`)."""

    metrics: RankMetrics
    """Metrics of the re-ranked gallery."""
    k1: int
    """Neighbors of an image that may be reciprocal."""
    k2: int
    """Images over which the encoding is averaged."""
    lambda_value: float
    """Weight of the original distance."""


@dataclass(frozen=True)
class Expanded:
    """Metrics with alpha query expansion, not re-ranked, and its parameters."""

    metrics: RankMetrics
    """Metrics of the gallery ranked for the expanded queries."""
    k: int
    """Neighbors added to a query."""
    alpha: float
    """Exponent of their weights."""


@dataclass(frozen=True)
class PartScores:
    """Scores of one part of the embedding, ranked alone and not re-ranked; means in [0, 1]."""

    kind: str
    """Kind of the part: "all", "branch", "path", "region" or "feature"."""
    name: str
    """Name of the part; see `embedding_parts`."""
    width: int
    """Columns of the embedding that the part has."""
    rank_1: float
    """Share of queries whose first match is the nearest image."""
    mean_ap: float
    """mAP, step definition."""
    mean_ap_official: float
    """mAP as Market-1501's evaluation code computes it."""
    mean_inp: float
    """mINP."""


@dataclass(frozen=True)
class EvaluationResult:
    """One model evaluated on one dataset. Metrics without re-ranking are always included."""

    dataset: str
    """Name of the dataset, with its configuration if it has one."""
    version: str
    """Version of the dataset."""
    n_query: int
    """Q: number of query images."""
    n_gallery: int
    """G: number of gallery images."""
    n_ids: int
    """Number of identities of the queries."""
    flipped: bool
    """Embeddings are averaged with those of the mirrored images."""
    same_camera_rule: bool
    """Gallery images of the query's own identity and camera are dropped; False without camera
    ids."""
    plain: RankMetrics
    """Metrics by distance of the embeddings, not re-ranked."""
    reranked: Reranked | None = None
    """Metrics with re-ranking, if requested."""
    checkpoint: str | None = None
    """Source of the weights, as the user gave it."""
    step: str | None = None
    """Training step of the weights."""
    expanded: Expanded | None = None
    """Metrics with query expansion, if requested."""
    verification: VerificationMetrics | None = None
    """Verification by the plain distances, if requested."""
    trained_on: str | None = None
    """Dataset on which the weights were trained."""
    digest: str | None = None
    """Digest of the weights."""
    data_digest: str | None = None
    """Digests of query and gallery."""
    parts: tuple[PartScores, ...] | None = None
    """Scores of the parts of the embedding, if requested."""

    def __post_init__(self) -> None:
        if not isinstance(self.plain, RankMetrics):
            raise TypeError(f"plain must be RankMetrics, got {type(self.plain)}.")
        others = [other.metrics for other in (self.reranked, self.expanded) if other]
        for metrics in (self.plain, *others):
            if len(metrics.ap) != self.n_query:
                raise ValueError(
                    f"n_query is {self.n_query}, but the metrics are of {len(metrics.ap)} queries."
                )

    def to_json(self) -> str:
        """Returns the result as JSON, with the values of each query and a digest of all fields.

        NaN becomes null.
        """
        fields = dict(vars(self), n_valid_queries=self.plain.n_valid_queries)
        fields["plain"] = _metrics_to_dict(self.plain)
        for name in ("reranked", "expanded"):
            if (other := fields[name]) is not None:
                fields[name] = dict(vars(other), metrics=_metrics_to_dict(other.metrics))
        if self.verification is not None:
            fields["verification"] = {
                name: value.tolist() if isinstance(value, np.ndarray) else value
                for name, value in vars(self.verification).items()
            }
        if self.parts is not None:
            fields["parts"] = [vars(part) for part in self.parts]
        return checked_json.to_text(fields)

    @classmethod
    def from_json(cls, text: str) -> "EvaluationResult":
        """Reads a result written by `to_json`, by this version or an earlier one.

        Raises:
            InputError: the text is not an evaluation result, or is damaged.
        """
        try:
            fields = checked_json.from_text(text)
            del fields["n_valid_queries"]
            fields["plain"] = _metrics_from_dict(fields["plain"])
            for name, kind in (("reranked", Reranked), ("expanded", Expanded)):
                if (other := fields.get(name)) is not None:
                    metrics = _metrics_from_dict(other["metrics"])
                    fields[name] = kind(**other | {"metrics": metrics})
            if (rates := fields.get("verification")) is not None:
                fields["verification"] = _verification_from_dict(rates)
            if (parts := fields.get("parts")) is not None:
                if not isinstance(parts, list) or not parts:
                    raise ValueError(f"parts must be a list of scores, got {str(parts)[:80]}")
                fields["parts"] = tuple(PartScores(**part) for part in parts)
            result = cls(**fields)
            check_fields(result)
            for other in filter(None, (result.reranked, result.expanded, *(result.parts or ()))):
                check_fields(other)
            step = result.step
            if step is not None and not (step.isdecimal() and len(step) < 16):
                raise ValueError(f"the step {step[:80]!r} is not a number")
            return result
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            raise InputError(
                f"The text is not an evaluation result, or is damaged: {reason}."
            ) from error


def _metrics_to_dict(metrics: RankMetrics) -> dict[str, Any]:
    per_query = {
        name: [None if value != value else value for value in getattr(metrics, name).tolist()]
        for name in _PER_QUERY
    }
    return {
        "mean_ap": metrics.mean_ap,
        "mean_ap_official": metrics.mean_ap_official,
        "mean_inp": metrics.mean_inp,
        "n_valid_queries": metrics.n_valid_queries,
        "cmc": metrics.cmc.tolist(),
        "per_query": per_query,
    }


def _metrics_from_dict(fields: dict[str, Any]) -> RankMetrics:
    per_query = {
        name: _numbers(
            name, [np.nan if value is None else value for value in fields["per_query"][name]]
        )
        for name in _PER_QUERY
    }
    metrics = RankMetrics(
        cmc=_numbers("cmc", fields["cmc"]),
        # "mean_ap_step" is its name in results of version 0.1.
        mean_ap=fields["mean_ap" if "mean_ap" in fields else "mean_ap_step"],
        mean_ap_official=fields["mean_ap_official"],
        mean_inp=fields["mean_inp"],
        n_valid_queries=fields["n_valid_queries"],
        **per_query,
    )
    check_fields(metrics)
    sizes = {name: len(values) for name, values in per_query.items()}
    if len(set(sizes.values())) > 1 or not len(metrics.cmc):
        raise ValueError(f"expected one value of each query and a CMC curve, got {sizes} values")
    return metrics


def _verification_from_dict(fields: dict[str, Any]) -> VerificationMetrics:
    rates: dict[str, Any] = {
        name: _numbers(name, fields[name])
        for name in ("false_positive_rates", "true_positive_rates", "thresholds")
    }
    counts = {name: value for name, value in fields.items() if name not in rates}
    if len({len(values) for values in rates.values()}) > 1:
        raise ValueError(f"the rates are not of the same thresholds: {rates}")
    if not all(type(count) is int for count in counts.values()):
        raise ValueError(f"expected numbers of pairs, got {counts}")
    return VerificationMetrics(**rates, **counts)


def _numbers(name: str, values: Any) -> np.ndarray:
    """Converts a list to an array of numbers, which may be NaN."""
    array = np.array(values)
    if array.ndim != 1 or array.dtype.kind not in "if" or np.isinf(array).any():
        raise ValueError(f"{name} must be a list of finite numbers, got {str(values)[:80]}")
    return array


MEASURES = ("rank-1", "rank-5", "rank-10", "mAP (step)", "mAP (official)", "mINP")
"""Names of the metrics in tables."""


def measures(metrics: RankMetrics) -> dict[str, float]:
    """Returns the `MEASURES` in percent, without ranks beyond the CMC curve."""
    values = {f"rank-{k}": metrics.cmc[k - 1] for k in (1, 5, 10) if k <= len(metrics.cmc)}
    values["mAP (step)"] = metrics.mean_ap
    values["mAP (official)"] = metrics.mean_ap_official
    values["mINP"] = metrics.mean_inp
    return {name: 100 * float(value) for name, value in values.items()}


def print_results(
    results: Sequence[EvaluationResult],
    reference: Mapping[str, Mapping[str, float]] | None = None,
    *,
    reference_name: str = "paper",
    baselines: Mapping[str, RankMetrics] | None = None,
    console: Console | None = None,
) -> None:
    """Prints a table of each result with its dataset, its settings and published numbers.

    Args:
        results: results on one or several datasets.
        reference: published numbers in percent, by dataset and measure. A dataset is named as in
            the result, with " re-ranked" appended for re-ranked numbers. A measure is one of
            `MEASURES`, or "mAP" if the source does not state which one, shown in its own column.
        reference_name: name of the source in the rows of the reference.
        baselines: metrics of other rankings of the same data, by name; for a single result.
        console: the console to print on; standard output by default.

    Raises:
        ValueError: the reference has an unknown measure.
    """
    reference = reference or {}
    unknown = {name for numbers in reference.values() for name in numbers} - {*MEASURES, "mAP"}
    if unknown:
        raise ValueError(
            f"A reference may contain {', '.join((*MEASURES, 'mAP'))}, got "
            f"{', '.join(sorted(unknown))}."
        )
    columns = list(MEASURES)
    if any("mAP" in numbers for numbers in reference.values()):
        columns.insert(columns.index("mINP"), "mAP")

    console = console or Console()
    for result in results:
        table = Table(
            title=Text(_describe(result)),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        table.add_column("in percent", overflow="fold")
        for name in columns:
            # Two lines, so that the column can be narrow.
            header = "mAP\n(unspecified)" if name == "mAP" else name.replace(" ", "\n")
            table.add_column(header, justify="right", no_wrap=True)
        rows = list(_rows(result, reference, reference_name))
        rows += [(name, measures(metrics)) for name, metrics in (baselines or {}).items()]
        for name, numbers in rows:
            cells = [f"{numbers[column]:.2f}" if column in numbers else "–" for column in columns]
            table.add_row(name, *cells)
        console.print(table)


def print_parts(result: EvaluationResult, console: Console) -> None:
    """Prints the scores of the parts of the embedding of a result that has them."""
    table = Table(
        title=Text(
            f"{result.dataset} {result.version} by part of the embedding, not re-ranked; in percent"
        ),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("part")
    table.add_column("", overflow="fold")
    for name in ("width", "rank-1", "mAP\n(step)", "mAP\n(official)", "mINP"):
        table.add_column(name, justify="right", no_wrap=True)
    previous = None
    for part in result.parts or ():
        means = (part.rank_1, part.mean_ap, part.mean_ap_official, part.mean_inp)
        table.add_row(
            part.kind if part.kind != previous else "",
            part.name,
            str(part.width),
            *(f"{100 * mean:.2f}" for mean in means),
        )
        previous = part.kind
    console.print(table)


def _rows(
    result: EvaluationResult, reference: Mapping[str, Mapping[str, float]], reference_name: str
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yields names and numbers of the rows: each ranking, followed by its reference if any."""
    flip = "flipped" if result.flipped else "not flipped"
    rankings: list[tuple[str, str | None, RankMetrics]] = [
        ("not re-ranked", result.dataset, result.plain)
    ]
    if result.reranked is not None:
        rankings.append(("re-ranked", f"{result.dataset} re-ranked", result.reranked.metrics))
    if result.expanded is not None:
        rankings.append(("queries expanded", None, result.expanded.metrics))
    for ranking, key, metrics in rankings:
        yield f"{flip}, {ranking}", measures(metrics)
        if key is not None and key in reference:
            yield f"{reference_name}, {ranking}", reference[key]


def _describe(result: EvaluationResult) -> str:
    lines = [
        f"{result.dataset} {result.version}: {result.n_query:,} queries of {result.n_ids:,} "
        f"identities, {result.n_gallery:,} gallery images",
    ]
    without = result.n_query - result.plain.n_valid_queries
    if without:
        lines.append(f"queries without a match, not counted: {without:,}")
    if not result.same_camera_rule:
        lines.append("no camera ids: the same-camera rule does not apply")
    if result.reranked is not None:
        r = result.reranked
        lines.append(f"re-ranking: k1 {r.k1}, k2 {r.k2}, lambda {r.lambda_value:g}")
    if result.expanded is not None:
        lines.append(f"query expansion: k {result.expanded.k}, alpha {result.expanded.alpha:g}")
    if result.verification is not None:
        points = zip(
            result.verification.true_positive_rates,
            result.verification.false_positive_rates,
            strict=True,
        )
        rates = ", ".join(f"{100 * tpr:.2f} at {fpr:g}" for tpr, fpr in points)
        lines.append(f"verification, not re-ranked: TPR in percent at FPR: {rates}")
    if result.checkpoint is not None:
        step = f", step {result.step}" if result.step is not None else ""
        source = f", trained on {result.trained_on}" if result.trained_on is not None else ""
        lines.append(f"weights: {result.checkpoint}{step}{source}")
    return "\n".join(lines)
