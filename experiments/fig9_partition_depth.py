"""Where in the network the map is split: one branch of 2, 3 or 6 stripes (Fig. 9).

    python -m experiments.fig9_partition_depth --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.fig9_partition_depth --preset demo --rows 2-stripe-res3

"input" is input partition, "output" output partition, "res3" in front of the blocks of res3, as in
RMGL. A position's name is the paper's; `fold_at` names the stage before it.

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, seconds: to see that everything works

The paper does not say whether the original path is beside; here there is the split path alone,
without ABP and RSA, so that the last position is output partition and nothing else. It draws its
numbers and does not print them, but for "only RP" at res3, which Table V has. It says: for 2 and 3
stripes an intermediate map is the best, and 6 stripes are worse everywhere. Not measured with this
code.
"""

from dataclasses import replace
from functools import partial

from rmgl_jax.config import ExperimentConfig, FoldPosition
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.results import PaperNumbers, Row, Sweep, numbers
from rmgl_jax.experiment.sweep import main

POSITIONS: dict[str, FoldPosition] = {
    "input": "input",
    "res2": "stem",
    "res3": "res2",
    "res4": "res3",
    "res5": "res4",
    "output": "res5",
}


def _split(base: ExperimentConfig, stripes: int, fold_at: FoldPosition) -> ExperimentConfig:
    config = presets.components(base, (stripes,), ("receptive",))
    return replace(config, model=replace(config.model, fold_at=fold_at))


ONLY_RP: dict[str, PaperNumbers] = {
    "2-stripe-res3": numbers({"market1501": (86.3, 95.0), "dukemtmc_reid": (77.2, 88.0)}),
    "3-stripe-res3": numbers({"market1501": (86.5, 95.3), "dukemtmc_reid": (78.1, 88.7)}),
}

ROWS = tuple(
    Row(
        name=f"{stripes}-stripe-{position}",
        change=partial(_split, stripes=stripes, fold_at=fold_at),
        paper=ONLY_RP.get(f"{stripes}-stripe-{position}", {}),
        against=None if position == "output" else f"{stripes}-stripe-output",
        points={f"{stripes} stripes": position},
    )
    for stripes in (2, 3, 6)
    for position, fold_at in POSITIONS.items()
)

SWEEP = Sweep(
    name="fig9_partition_depth",
    title="Place of the partition (Fig. 9)",
    presets=presets.of_sweeps("market1501"),
    rows=ROWS,
    x_label="split in front of",
)

if __name__ == "__main__":
    main(SWEEP, __doc__)
