"""Rows of tables and figures, published numbers, and statistics over the seeds of a row."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtr

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.evaluation.result import EvaluationResult, PaperNumbers, measures

RERANKED = " re-ranked"
"""Suffix of a dataset's name for numbers that were measured after re-ranking."""
PairNumbers = Mapping[str, PaperNumbers]
"""Published numbers in percent by dataset of training, dataset of evaluation, and measure."""
OURS = ("rank-1", "mAP (step)", "mAP (official)")
"""Measures that tables and figures show of our runs."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a table, or one point of a figure."""

    name: str
    """Also the name of the row's directory."""
    overrides: Callable[[ExperimentConfig], ExperimentConfig]
    """Maps the base configuration, which all rows share, to that of this row."""
    paper: PaperNumbers = field(default_factory=dict)
    """Published numbers in percent, by dataset (with " re-ranked" after it) and measure."""
    baseline: str | None = None
    """Name of the row that this one is compared with."""
    control: str | None = None
    """Name of a second row to compare with, which has a part of what this row changes."""
    points: Mapping[str, float | str] = field(default_factory=dict)
    """In a figure: position on the horizontal axis, by curve."""


Results = Mapping[Row, Sequence[EvaluationResult]]
"""Results of the finished runs of each row, one per seed."""


@dataclass(frozen=True)
class Sweep:
    """A table or figure: its rows, the configurations they start from, and its titles."""

    name: str
    """Name of the module, and of the files that are written."""
    title: str
    """Title of the table or figure, in one line."""
    presets: Mapping[str, ExperimentConfig]
    """Base configurations by name; the first is the default."""
    rows: tuple[Row, ...]
    published: Mapping[str, PaperNumbers] = field(default_factory=dict)
    """Numbers of other methods as printed in the paper, by method."""
    x_label: str = ""
    """Label of a figure's horizontal axis."""
    note: str = ""
    """Remark to print below the table."""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name} has rows of the same name: {', '.join(names)}.")
        compared = {name for row in self.rows for name in (row.baseline, row.control)}
        unknown = compared - {None, *names}
        if unknown:
            raise ValueError(f"{self.name} has no row for the baselines {unknown}.")


def numbers(by_dataset: Mapping[str, tuple[float, float]]) -> PaperNumbers:
    """Published numbers from pairs (mAP, rank-1) in percent, the order in which papers print them.

    Args:
        by_dataset: pairs by dataset, with " re-ranked" after its name for re-ranked numbers.
    """
    return {name: {"mAP": pair[0], "rank-1": pair[1]} for name, pair in by_dataset.items()}


def plain_measures(results: Sequence[EvaluationResult]) -> list[dict[str, float]]:
    """Measures of each result in percent, without re-ranking."""
    return [measures(result.plain) for result in results]


def reranked_measures(results: Sequence[EvaluationResult]) -> list[dict[str, float]]:
    """Measures in percent after re-ranking, of those results that were re-ranked."""
    return [measures(result.reranked.metrics) for result in results if result.reranked is not None]


def collect(runs: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Values of each measure of `OURS` over n runs, as arrays [n]."""
    return {name: np.array([run[name] for run in runs]) for name in OURS}


def spread(values: np.ndarray) -> float:
    """Sample standard deviation (n - 1) of values [n]; 0 for a single one."""
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def welch_test(mine: np.ndarray, other: np.ndarray) -> float | None:
    """Two-sided p value of Welch's t-test for the means of two samples [n] and [m].

    The test is not paired: two configurations with the same seed share little, since a network
    with other parameters draws other random numbers.

    Returns:
        The p value; None if a sample has fewer than two values, or neither has any spread.
    """
    if min(len(mine), len(other)) < 2 or max(np.ptp(mine), np.ptp(other)) == 0:
        return None
    n, m = len(mine), len(other)
    a, b = mine.var(ddof=1) / n, other.var(ddof=1) / m
    t = (mine.mean() - other.mean()) / np.sqrt(a + b)
    degrees_of_freedom = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    return float(2 * stdtr(degrees_of_freedom, -abs(t)))
