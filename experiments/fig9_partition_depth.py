"""Position of the partition in the network: one branch of 2, 3 or 6 stripes (Fig. 9).

    python -m experiments.fig9_partition_depth --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.fig9_partition_depth --preset demo --rows 2-stripe-res3

"input" is input partition, "output" output partition, and "res3" is before the blocks of res3, as
in RMGL. Positions have the paper's names; `fold_at` names the stage before.

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores;
         3 and 6 stripes do not divide its map
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, for a quick check

The paper does not say if the original path is present too. Here it is not, and neither are ABP and
RSA, so that the last position is exactly output partition. The paper plots its numbers without
printing them, except for "only RP" at res3, which is in Table V. Its text says that an intermediate
map is best for 2 and 3 stripes, and that 6 stripes are worse everywhere. Not measured with this
code.
"""

from dataclasses import replace
from functools import partial

from rmgl_jax.config import ExperimentConfig, FoldPosition
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import PaperNumbers, Row, Sweep, numbers

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
        f"{stripes}-stripe-{position}",
        partial(_split, stripes=stripes, fold_at=fold_at),
        paper=ONLY_RP.get(f"{stripes}-stripe-{position}", {}),
        baseline=None if position == "output" else f"{stripes}-stripe-output",
        points={f"{stripes} stripes": position},
    )
    for stripes in (2, 3, 6)
    for position, fold_at in POSITIONS.items()
)

SWEEP = Sweep(
    name="fig9_partition_depth",
    title="Position of the partition (Fig. 9)",
    presets=presets.sweep_presets("market1501")
    | {"cpu_pretrained": presets.cpu_pretrained("market1501")},
    rows=ROWS,
    x_label="split before",
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
