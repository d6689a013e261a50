"""The figure of a sweep: rank-1 and mAP over the value that its rows vary."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from data_prep.files import replacing
from rmgl_jax.experiment.results import Results, Sweep, collect, plain_measures, spread

PANELS = {"rank-1": "rank-1", "mAP (step)": "mAP"}
"""Our measures, and the names of the paper's. The paper does not say which mAP it means."""


@dataclass(frozen=True)
class Curve:
    """One curve of a panel, in percent, from left to right."""

    ours: tuple[tuple[float, float, float], ...]
    """Position, mean over the seeds, and standard deviation (0 for one seed)."""
    paper: tuple[tuple[float, float], ...]
    """Position and published number."""


def draw(sweep: Sweep, results: Results, dataset: str, path: Path) -> None:
    """Writes a PNG with one panel per measure.

    Error bars show the standard deviation over seeds, crosses the paper's numbers of this dataset.
    Rows without a result leave a gap.
    """
    # pyplot would keep every figure in memory and look for a display.
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for number, (name, curve) in enumerate(curves(results, dataset, measure).items()):
            color = f"C{number}"
            if curve.ours:
                x, mean, deviation = zip(*curve.ours, strict=True)
                axes.errorbar(x, mean, deviation, marker="o", capsize=3, color=color, label=name)
            if curve.paper:
                x, mean = zip(*curve.paper, strict=True)
                axes.plot(x, mean, "x", color=color, label=f"{name}, paper")
        if names := _axis_names(results):
            axes.set_xticks(range(len(names)), names)
        axes.set_xlabel(sweep.x_label)
        axes.set_ylabel(f"{measure}, percent")
        axes.legend()
    figure.suptitle(f"{sweep.title}: {dataset}")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def curves(results: Results, dataset: str, measure: str) -> dict[str, Curve]:
    """Curves of one measure (a key of `PANELS`), by name."""
    names = _axis_names(results)
    found = {}
    for name in dict.fromkeys(name for row in results for name in row.points):
        ours: list[tuple[float, float, float]] = []
        published: list[tuple[float, float]] = []
        for row, runs in results.items():
            if name not in row.points:
                continue
            x = row.points[name]
            position = float(names.index(str(x)) if names else x)
            if runs:
                values = collect(plain_measures(runs))[measure]
                ours.append((position, float(values.mean()), spread(values)))
            if (number := row.paper.get(dataset, {}).get(PANELS[measure])) is not None:
                published.append((position, number))
        found[name] = Curve(tuple(sorted(ours)), tuple(sorted(published)))
    return found


def _axis_names(results: Results) -> list[str]:
    """Labels of a categorical axis in the order of the rows; empty for a numerical axis."""
    values = list(dict.fromkeys(x for row in results for x in row.points.values()))
    return [str(x) for x in values] if any(isinstance(x, str) for x in values) else []
