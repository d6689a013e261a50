"""RMGL with different weight decays (Fig. 11).

    python -m experiments.fig11_weight_decay --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.fig11_weight_decay --dataset msmt17/train ...
    python -m experiments.fig11_weight_decay --preset demo --seeds 3

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, for a quick check

The paper's numbers for 1e-3 are those of its tables. It plots the others without printing them. The
numbers for 5e-4 are derived here: those of the tables minus the differences in the text (on
Market-1501 0.5 of mAP and 0.2 of rank-1, on CUHK03 0.8 and 0.9; on MSMT17 1e-3 is worse by 0.8 and
0.4). The text also says that both are alike on DukeMTMC-reID, that 2e-4 is acceptable everywhere,
and that 2e-3 is far worse. Not measured with this code.
"""

from dataclasses import replace

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import Row, Sweep, numbers


def _row(name: str, paper: dict[str, tuple[float, float]]) -> Row:
    def overrides(base: ExperimentConfig) -> ExperimentConfig:
        config = presets.rmgl(base)
        return replace(config, optimizer=replace(config.optimizer, weight_decay=float(name)))

    return Row(
        name,
        overrides,
        paper=numbers(paper),
        baseline=None if name == "1e-3" else "1e-3",
        points={"RMGL": name},
    )


ROWS = (
    _row("2e-4", {}),
    _row(
        "5e-4",
        {
            "market1501": (89.5, 96.0),
            "cuhk03_np/labeled": (77.1, 79.0),
            "msmt17/train": (61.2, 84.0),
            "msmt17/trainval": (61.2, 84.0),
        },
    ),
    _row(
        "1e-3",
        {
            "market1501": (90.0, 96.2),
            "dukemtmc_reid": (81.0, 90.5),
            "cuhk03_np/labeled": (77.9, 79.9),
            "msmt17/train": (60.4, 83.6),
            "msmt17/trainval": (60.4, 83.6),
        },
    ),
    _row("2e-3", {}),
)

SWEEP = Sweep(
    name="fig11_weight_decay",
    title="Weight decay (Fig. 11)",
    presets=presets.sweep_presets("market1501"),
    rows=ROWS,
    x_label="weight decay",
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
