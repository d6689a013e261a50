"""The figure of a sweep: rank-1 and mAP over what its rows vary, ours and the paper's."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rmgl_jax.experiment.results import Row, Sweep
from rmgl_jax.experiment.table import plain, values

if TYPE_CHECKING:
    from rmgl_jax.evaluation.result import EvaluationResult

_PANELS = {"rank-1": "rank-1", "mAP (step)": "mAP"}
"""Our measures, and what the paper calls them; it does not say which mAP it means."""


@dataclass(frozen=True)
class Line:
    """One line of a panel, in percent, from left to right."""

    ours: tuple[tuple[float, float, float], ...]
    """Place, mean and standard deviation over seeds; 0 for one seed."""
    paper: tuple[tuple[float, float], ...]
    """Place and published number."""


def draw(
    sweep: Sweep,
    results: "Mapping[Row, Sequence[EvaluationResult]]",
    dataset: str,
    path: Path,
) -> None:
    """Writes a PNG: a panel a measure, a line a series, bars for the spread over seeds.

    Rows without a result leave a gap. The paper's numbers of this data set are crosses.
    """
    # Not pyplot, which keeps every figure and looks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        for number, (name, line) in enumerate(lines(results, dataset, measure).items()):
            color = f"C{number}"
            if line.ours:
                x, mean, spread = zip(*line.ours, strict=True)
                axes.errorbar(x, mean, spread, marker="o", capsize=3, color=color, label=name)
            if line.paper:
                x, mean = zip(*line.paper, strict=True)
                axes.plot(x, mean, "x", color=color, label=f"{name}, paper")
        if names := _names(results):
            axes.set_xticks(range(len(names)), names)
        axes.set_xlabel(sweep.x_label)
        axes.set_ylabel(f"{measure}, percent")
        axes.legend()
    figure.suptitle(f"{sweep.title}: {dataset}")
    # Written whole or not at all.
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=150)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data.getvalue())
    os.replace(temporary, path)


def lines(
    results: "Mapping[Row, Sequence[EvaluationResult]]", dataset: str, measure: str
) -> dict[str, Line]:
    """What is drawn of one measure, by series."""
    names = _names(results)
    found = {}
    for series in dict.fromkeys(name for row in results for name in row.points):
        ours, published = [], []
        for row, runs in results.items():
            if series not in row.points:
                continue
            x = row.points[series]
            place = float(names.index(str(x)) if names else x)
            if runs:
                numbers = values([plain(run) for run in runs])[measure]
                spread = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
                ours.append((place, float(numbers.mean()), spread))
            if (number := row.paper.get(dataset, {}).get(_PANELS[measure])) is not None:
                published.append((place, number))
        found[series] = Line(tuple(sorted(ours)), tuple(sorted(published)))
    return found


def _names(results: "Mapping[Row, Sequence[EvaluationResult]]") -> list[str]:
    """The places on an axis of names, in the order of the rows; none on one of numbers."""
    places = list(dict.fromkeys(x for row in results for x in row.points.values()))
    return [str(x) for x in places] if any(isinstance(x, str) for x in places) else []
