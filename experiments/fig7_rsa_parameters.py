"""RSA's probability of cropping, least crop and least width, each with the others fixed (Fig. 7).

    python -m experiments.fig7_rsa_parameters --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.fig7_rsa_parameters --preset demo --seeds 3

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, seconds: to see that everything works

The paper draws its numbers and does not print them, nor which network they are of; here it is
two-branch RMGL. It says: p_c is nearly flat from 0.3 to 0.6 with its best at 0.5, and worse at 1;
r_c is best at 0.7, worse below about 0.5 and steady above; a small r_w is worse. Not measured with
this code.
"""

from dataclasses import replace
from functools import partial

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.results import Row, Sweep
from rmgl_jax.experiment.sweep import main


def _with(base: ExperimentConfig, **shifting: float) -> ExperimentConfig:
    config = presets.rmgl(base)
    changed = replace(config.augment.shifting, **shifting)
    return replace(config, augment=replace(config.augment, shifting=changed))


def _row(series: str, field: str, value: float) -> Row:
    return Row(
        name=f"{series}-{value:g}",
        change=partial(_with, **{field: value}),
        against="RMGL",
        points={series: value},
    )


_DEFAULT = {"crop_probability": 0.5, "min_crop": 0.7, "min_width": 0.5}

ROWS = (
    Row("RMGL", partial(_with, **_DEFAULT), points={"p_c": 0.5, "r_c": 0.7, "r_w": 0.5}),
    *(_row("p_c", "crop_probability", value) for value in (0.0, 0.1, 0.3, 0.4, 0.6, 0.8, 1.0)),
    *(_row("r_c", "min_crop", value) for value in (0.3, 0.4, 0.5, 0.6, 0.8, 0.9)),
    *(_row("r_w", "min_width", value) for value in (0.3, 0.4, 0.6, 0.7, 0.8, 0.9)),
)

SWEEP = Sweep(
    name="fig7_rsa_parameters",
    title="Parameters of random shifting (Fig. 7)",
    presets=presets.of_sweeps("market1501"),
    rows=ROWS,
    x_label="value of the parameter",
)

if __name__ == "__main__":
    main(SWEEP, __doc__)
