"""Number of stripes: one branch with both paths and RSA (Fig. 8).

    python -m experiments.fig8_partition_numbers --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.fig8_partition_numbers --dataset msmt17/train ...
    python -m experiments.fig8_partition_numbers --preset demo --seeds 3 --rows s_2 s_3 s_6

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores;
         3 and 6 stripes do not divide its map
  demo   a thin network at 96x48 from scratch, on synthetic/demo; 2, 3 and 6 stripes divide its map
  tiny   a few images, for a quick check

The numbers of stripes are those that divide the map of 24 rows. The paper plots its results without
printing them, except for 2 stripes, which are in Table V. Its text says that 2 is best on
Market-1501 and CUHK03, and 3 on DukeMTMC-reID and MSMT17. Not measured with this code.
"""

from functools import partial

from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import Row, Sweep, numbers


def _row(stripes: int, **paper: tuple[float, float]) -> Row:
    return Row(
        f"s_{stripes}",
        partial(
            presets.components,
            granularities=(stripes,),
            paths=("original", "receptive"),
            rsa=True,
        ),
        paper=numbers(paper),
        baseline=None if stripes == 2 else "s_2",
        points={"RP and RSA": stripes},
    )


ROWS = (
    _row(2, market1501=(88.1, 95.5), dukemtmc_reid=(78.7, 89.1)),
    _row(3),
    _row(4),
    _row(6),
    _row(8),
)

SWEEP = Sweep(
    name="fig8_partition_numbers",
    title="Number of stripes (Fig. 8)",
    presets=presets.sweep_presets("market1501")
    | {"cpu_pretrained": presets.cpu_pretrained("market1501")},
    rows=ROWS,
    x_label="stripes",
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
