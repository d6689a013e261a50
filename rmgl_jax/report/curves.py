"""Curves as SVG that a page takes its text color from, so that it is read in light and in dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmgl_jax.evaluation.ranking import RankMetrics

Records = Sequence[Mapping[str, Any]]

_POINTS = 250
# Stands for the page's own text color until the SVG is written.
_TEXT = "#010203"
# Readable on white and on black, and told apart by their dashes too.
_STYLES = (
    {"color": "#2b7bba", "linestyle": "-"},
    {"color": "#d95f02", "linestyle": "--"},
    {"color": "#1b9e77", "linestyle": "-."},
    {"color": "#b05cc6", "linestyle": ":"},
)


def training_curves(records: Records, names: Sequence[str], unit: str, log: bool = False) -> str:
    """Values of the training steps against the step, averaged over neighbors if there are many."""
    figure, axes = _figure("training step", unit)
    for name, style in zip(names, _STYLES, strict=False):
        steps, values = series(records, "train", name)
        if not len(steps):  # There is no triplet loss, say.
            continue
        size = -(-len(steps) // _POINTS)
        parts = [slice(i, i + size) for i in range(0, len(steps), size)]
        axes.plot(
            [steps[part].mean() for part in parts],
            [values[part].mean() for part in parts],
            label=_readable(name),
            **style,
        )
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    return _svg(figure, axes, names[0])


def evaluation_curves(records: Records, names: Mapping[str, str]) -> str:
    """Measures of the evaluations on the way, in percent, against the step.

    Args:
        records: of the run.
        names: what a measure is called, by its name in the records.
    """
    figure, axes = _figure("training step", "percent")
    for (name, label), style in zip(names.items(), _STYLES, strict=False):
        steps, values = series(records, "eval", name)
        axes.plot(steps, 100 * values, label=label, marker="o", markersize=4, **style)
    axes.set_ylim(bottom=0)
    return _svg(figure, axes, "evaluations")


def cmc_curves(curves: Mapping[str, np.ndarray]) -> str:
    """CMC curves, in percent, by name."""
    figure, axes = _figure("rank", "percent of queries found")
    for (name, cmc), style in zip(curves.items(), _STYLES, strict=False):
        axes.plot(np.arange(1, len(cmc) + 1), 100 * cmc, label=name, **style)
    axes.set_xticks([1, 10, 20, 30, 40, 50])
    axes.set_xlim(1, 50)
    axes.set_ylim(top=100.5)
    return _svg(figure, axes, "cmc")


def ap_histogram(metrics: RankMetrics) -> str:
    """How many queries have which AP (step)."""
    figure, axes = _figure("AP of a query, in percent", "queries")
    axes.hist(100 * metrics.ap[~np.isnan(metrics.ap)], bins=np.arange(0, 101, 5), color="#2b7bba")
    return _svg(figure, axes, "ap")


def series(records: Records, kind: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of the records of a kind that have a value of this name."""
    pairs = [(r["step"], float(r[name])) for r in records if r["kind"] == kind and name in r]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values


def _readable(name: str) -> str:
    return name.replace("_", "-") if name == "cross_entropy" else name.replace("_", " ")


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    # No pyplot: it would keep every figure, and choose a screen.
    figure = Figure(figsize=(4.8, 3.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#8888", linewidth=0.5)
    return figure, axes


def _svg(figure: Figure, axes: Axes, name: str) -> str:
    if len(axes.lines) > 1:
        axes.legend(frameon=False, labelcolor=_TEXT)
    axes.tick_params(colors=_TEXT)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set_color(_TEXT)
    for side, spine in axes.spines.items():
        spine.set_color(_TEXT)
        spine.set_visible(side in ("left", "bottom"))
    buffer = io.StringIO()
    # The salt keeps the ids of a page's figures apart, and the same from one writing to the next.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # The page says what the figure shows; its size is the page's business.
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg aria-hidden="true"', svg, count=1)
