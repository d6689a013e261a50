"""Draws the learning curve of a run into docs/images, and writes its figures to docs/results.

    python docs/learning_curve.py RUN --name NAME

RUN is a run directory. The table `docs/results/NAME.json` has a row for each epoch, the mean over
its steps, and `docs/images/NAME.svg` a point for each tenth of an epoch. Neither contains
photographs. The command is that of the run: take paths of your machine out of it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pictures import COLORS, save

from data_prep.files import write_text
from rmgl_jax.report.run_files import Records, read_run, series

RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "loss": "loss",
    "cross_entropy": "cross-entropy",
    "triplet": "triplet",
    "accuracy": "identities of the batch recognized, %",
    "learning_rate": "learning rate",
}


def main() -> None:
    """Writes the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    run = read_run(arguments.run)
    steps, _ = series(run.records, "train", "loss")
    per_epoch = len(steps) // run.config.train.epochs
    table = {
        "command": run.info["command"],
        "commit": run.info["commit"],
        "seeds": [run.config.train.seed],
        "columns": [["epoch"], *([name] for name in COLUMNS.values())],
        "rows": epochs(run.records, per_epoch),
    }
    write_text(RESULTS / f"{arguments.name}.json", json.dumps(table, indent=1) + "\n")
    save(draw(run.records, per_epoch), f"{arguments.name}.svg")


def epochs(records: Records, per_epoch: int) -> list[list[float]]:
    """Returns for each epoch its number, and the mean of each quantity over its steps."""
    columns = []
    for name in COLUMNS:
        _, values = series(records, "train", name)
        scale = 100 if name == "accuracy" else 1
        columns.append(scale * values.reshape(-1, per_epoch).mean(axis=1))
    rows = zip(*columns, strict=True)
    return [[epoch, *(float(f"{mean:.4g}") for mean in row)] for epoch, row in enumerate(rows, 1)]


def draw(records: Records, per_epoch: int) -> Figure:
    """Both losses and the classifiers' accuracy by epoch, and where the learning rate falls."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, recognized = figure.subplots(1, 2)
    for name, color in zip(("cross_entropy", "triplet"), COLORS, strict=False):
        _plot(losses, records, name, per_epoch, color)
    losses.set_ylabel("loss")
    losses.legend()
    _plot(recognized, records, "accuracy", per_epoch, COLORS[2], scale=100)
    recognized.set_ylabel(COLUMNS["accuracy"])
    steps, rates = series(records, "train", "learning_rate")
    falls = steps[1:][np.diff(rates) < -0.5 * rates[:-1]]
    for axes in (losses, recognized):
        for step in falls:
            axes.axvline(step / per_epoch, color="#888888", linestyle=":")
        axes.set_xlabel("epoch (dotted: the learning rate falls)")
        axes.set_ylim(bottom=0)
        axes.grid(color="#dddddd", linewidth=0.5)
    return figure


def _plot(
    axes: Axes, records: Records, name: str, per_epoch: int, color: str, scale: float = 1
) -> None:
    steps, values = series(records, "train", name)
    # A point for every tenth of an epoch: single batches of 64 images scatter.
    size = max(per_epoch // 10, 1)
    count = len(steps) // size * size
    means = [part[:count].reshape(-1, size).mean(axis=1) for part in (steps, scale * values)]
    axes.plot(means[0] / per_epoch, means[1], color=color, label=COLUMNS[name])


if __name__ == "__main__":
    main()
