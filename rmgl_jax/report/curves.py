"""Curves as SVG that inherits the text color of the page, for light and dark mode."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmgl_jax.evaluation.ranking import RankMetrics
from rmgl_jax.report.run_files import Records, series

_MAX_POINTS = 250
_LABELS = {"cross_entropy": "cross-entropy", "learning_rate": "learning rate"}
# Placeholder, replaced by the page's text color in the SVG.
_TEXT = "#010203"
# Readable on white and on black; dashes distinguish them without color.
_STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#2b7bba", "linestyle": "-"},
    {"color": "#d95f02", "linestyle": "--"},
    {"color": "#1b9e77", "linestyle": "-."},
    {"color": "#b05cc6", "linestyle": ":"},
)


def training_curves(records: Records, names: Sequence[str], unit: str, log: bool = False) -> str:
    """Plots quantities of the training steps; neighbors are averaged if there are many steps.

    Args:
        records: records of the run.
        names: names of the quantities; those without values are left out.
        unit: label of the vertical axis.
        log: Use a logarithmic vertical axis.
    """
    figure, axes = _figure("training step", unit)
    for name, style in zip(names, _STYLES, strict=False):
        steps, values = series(records, "train", name)
        if not len(steps):
            continue
        size = -(-len(steps) // _MAX_POINTS)
        parts = [slice(i, i + size) for i in range(0, len(steps), size)]
        axes.plot(
            [steps[part].mean() for part in parts],
            [values[part].mean() for part in parts],
            label=_LABELS.get(name, name),
            **style,
        )
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    return _svg(figure, axes, names[0])


def evaluation_curves(records: Records, names: Mapping[str, str]) -> str:
    """Plots the evaluations during training, in percent.

    Args:
        records: records of the run.
        names: name of each measure in the records, by its label.
    """
    figure, axes = _figure("training step", "percent")
    for (label, name), style in zip(names.items(), _STYLES, strict=False):
        steps, values = series(records, "eval", name)
        axes.plot(steps, 100 * values, label=label, marker="o", markersize=4, **style)
    axes.set_ylim(bottom=0)
    return _svg(figure, axes, "evaluations")


def cmc_curves(curves: Mapping[str, np.ndarray]) -> str:
    """Plots CMC curves [R], in percent, by their labels."""
    figure, axes = _figure("rank", "queries matched, in percent")
    for (name, cmc), style in zip(curves.items(), _STYLES, strict=False):
        axes.plot(np.arange(1, len(cmc) + 1), 100 * cmc, label=name, **style)
    axes.set_xticks([1, 10, 20, 30, 40, 50])
    axes.set_xlim(1, 50)
    axes.set_ylim(top=100.5)
    return _svg(figure, axes, "cmc")


def ap_histogram(metrics: RankMetrics) -> str:
    """Plots the distribution of AP (step) over the queries."""
    figure, axes = _figure("AP of a query, in percent", "queries")
    axes.hist(100 * metrics.ap[~np.isnan(metrics.ap)], bins=range(0, 101, 5), color="#2b7bba")
    return _svg(figure, axes, "ap")


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    # Not with pyplot, which keeps every figure and may need a display.
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
    # The salt makes ids unique within the page and reproducible.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    # The page describes the figure and sets its size.
    return re.sub(r'<svg width="[^"]*" height="[^"]*"', '<svg aria-hidden="true"', svg, count=1)
