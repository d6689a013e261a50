"""Rows of the result table, and CMC curves by ranking."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rmgl_jax.evaluation.ranking import RankMetrics
from rmgl_jax.evaluation.result import EvaluationResult, measures
from rmgl_jax.report.inspection import Inspection
from rmgl_jax.report.run_files import RunFiles

RECORDED_MEASURES = {
    "rank-1": "rank-1",
    "mAP (step)": "mean_ap",
    "mAP (official)": "mean_ap_official",
    "mINP": "mean_inp",
}
"""Measures of the evaluations during training: name in a result, and in a record."""


@dataclass(frozen=True)
class Row:
    """A row of the result table."""

    name: str
    """Name of the ranking."""
    values: Mapping[str, float]
    """Percentages by the names of `MEASURES`, as far as measured."""


def result_rows(run: RunFiles, seen: Inspection | None) -> list[Row]:
    """Returns the rows of the result; of an unfinished run, the best substitute that there is."""
    if run.result is not None:
        return [Row(name, measures(metrics)) for name, metrics in _rankings(run.result).items()]
    if seen is not None:
        return [Row(f"checkpoint of step {seen.trained.step}", measures(seen.metrics))]
    evaluations = [record for record in run.records if record["kind"] == "eval"]
    return [
        Row(
            f"evaluation during training, step {record['step']}",
            {
                name: 100 * float(record[key])
                for name, key in RECORDED_MEASURES.items()
                if key in record
            },
        )
        for record in evaluations[-1:]
    ]


def result_cmc(run: RunFiles, seen: Inspection | None) -> dict[str, np.ndarray]:
    """Returns CMC curves by name of the ranking; none if nothing was ranked."""
    if run.result is not None:
        return {name: metrics.cmc for name, metrics in _rankings(run.result).items()}
    return {} if seen is None else {"not re-ranked": seen.metrics.cmc}


def _rankings(result: EvaluationResult) -> dict[str, RankMetrics]:
    rankings = {"not re-ranked": result.plain}
    if result.reranked is not None:
        rankings["re-ranked"] = result.reranked.metrics
    if result.expanded is not None:
        rankings["queries expanded"] = result.expanded.metrics
    return rankings
