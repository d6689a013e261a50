"""RMGL with other margins of the triplet loss, and with the soft one (Fig. 10).

    python -m experiments.fig10_triplet_margin --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.fig10_triplet_margin --dataset dukemtmc_reid --source DIR --preset gpu
    python -m experiments.fig10_triplet_margin --preset demo --seeds 3

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, seconds: to see that everything works

The paper draws its numbers and does not print them, but for 0.6, which is RMGL. It says: 0.4 to 0.6
are the best, and the soft margin is worse than any. Not measured with this code.
"""

from dataclasses import replace
from functools import partial

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.results import PaperNumbers, Row, Sweep, numbers
from rmgl_jax.experiment.sweep import main

RMGL = numbers({"market1501": (90.0, 96.2), "dukemtmc_reid": (81.0, 90.5)})


def _with(base: ExperimentConfig, margin: float | None) -> ExperimentConfig:
    config = presets.rmgl(base)
    return replace(config, loss=replace(config.loss, margin=margin))


def _row(margin: float | None, paper: PaperNumbers, against: str | None) -> Row:
    name = "soft" if margin is None else f"{margin:g}"
    return Row(f"margin-{name}", partial(_with, margin=margin), paper, against, {"RMGL": name})


ROWS = (
    _row(None, {}, "margin-0.6"),
    *(_row(margin, {}, "margin-0.6") for margin in (0.1, 0.2, 0.3, 0.4, 0.5)),
    _row(0.6, RMGL, None),
    *(_row(margin, {}, "margin-0.6") for margin in (0.7, 0.8, 1.0, 1.2)),
)

SWEEP = Sweep(
    name="fig10_triplet_margin",
    title="Margin of the triplet loss (Fig. 10)",
    presets=presets.of_sweeps("market1501"),
    rows=ROWS,
    x_label="margin",
)

if __name__ == "__main__":
    main(SWEEP, __doc__)
