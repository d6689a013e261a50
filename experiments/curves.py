"""The figure of a sweep: rank-1 and mAP over what its rows vary, ours and the paper's."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.comparison import plain, values
from experiments.rows import Row, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rmgl_jax.evaluation.result import EvaluationResult

_PANELS = {"rank-1": "rank-1", "mAP (step)": "mAP"}
"""Our measures, and what the paper calls them; it does not say which mAP it means."""


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
    panels = figure.subplots(1, len(_PANELS))
    for axes, (measure, paper_measure) in zip(panels, _PANELS.items(), strict=True):
        _panel(axes, results, dataset, measure, paper_measure)
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


def _panel(
    axes: "Axes",
    results: "Mapping[Row, Sequence[EvaluationResult]]",
    dataset: str,
    measure: str,
    paper_measure: str,
) -> None:
    order = _positions(results)
    named = any(isinstance(x, str) for x in order)
    place = {x: float(number) if named else float(x) for number, x in enumerate(order)}
    series = list(dict.fromkeys(name for row in results for name in row.points))
    for number, name in enumerate(series):
        ours, published = [], []
        for row, runs in results.items():
            if name not in row.points:
                continue
            x = place[row.points[name]]
            if runs:
                found = values([plain(run) for run in runs])[measure]
                spread = found.std(ddof=1) if len(found) > 1 else 0.0
                ours.append((x, found.mean(), spread))
            if (paper := row.paper.get(dataset, {}).get(paper_measure)) is not None:
                published.append((x, paper))
        colour = f"C{number}"
        if ours:
            x, mean, spread = zip(*sorted(ours), strict=True)
            axes.errorbar(x, mean, spread, marker="o", capsize=3, color=colour, label=name)
        if published:
            x, mean = zip(*sorted(published), strict=True)
            axes.plot(x, mean, "x", color=colour, label=f"{name}, paper")
    if named:
        axes.set_xticks(range(len(order)), [str(x) for x in order])


def _positions(results: "Mapping[Row, Sequence[EvaluationResult]]") -> list[float | str]:
    """Every place on the horizontal axis once, in the order of the rows."""
    return list(dict.fromkeys(x for row in results for x in row.points.values()))
