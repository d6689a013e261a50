"""RMGL with different margins of the triplet loss, and with the soft margin (Fig. 10).

    python -m experiments.fig10_triplet_margin --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.fig10_triplet_margin --dataset dukemtmc_reid ...
    python -m experiments.fig10_triplet_margin --preset demo --seeds 3

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, for a quick check

The paper plots its numbers without printing them, except for 0.6, which is RMGL. Its text says that
0.4 to 0.6 are best and that the soft margin is worse than any of them. Not measured with this code.
"""

from dataclasses import replace

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import Row, Sweep, numbers

RMGL = numbers({"market1501": (90.0, 96.2), "dukemtmc_reid": (81.0, 90.5)})


def _row(margin: float | None) -> Row:
    def overrides(base: ExperimentConfig) -> ExperimentConfig:
        config = presets.rmgl(base)
        return replace(config, loss=replace(config.loss, margin=margin))

    name = "soft" if margin is None else f"{margin:g}"
    is_rmgl = margin == 0.6
    return Row(
        f"margin-{name}",
        overrides,
        paper=RMGL if is_rmgl else {},
        baseline=None if is_rmgl else "margin-0.6",
        points={"RMGL": name},
    )


ROWS = tuple(_row(margin) for margin in (None, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2))

SWEEP = Sweep(
    name="fig10_triplet_margin",
    title="Margin of the triplet loss (Fig. 10)",
    presets=presets.sweep_presets("market1501"),
    rows=ROWS,
    x_label="margin",
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
