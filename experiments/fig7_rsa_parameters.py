"""Parameters of RSA, one at a time: p, crop probability, minimum crop and minimum width (Fig. 7).

    python -m experiments.fig7_rsa_parameters --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.fig7_rsa_parameters --preset demo --seeds 3

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, for a quick check

The paper plots its numbers without printing them and does not name the network; here it is
two-branch RMGL. The line for p, the share of images that RSA acts on, is ours: the paper states no
value of it. The other lines have the preset's p. The paper's text says: p_c is nearly flat from 0.3
to 0.6, best at 0.5, and worse at 1; r_c is best at 0.7, worse below about 0.5, and steady above; a
small r_w is worse. Not measured with this code.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from rmgl_jax.config import ExperimentConfig, RandomShiftingConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import Row, Sweep

_CHANGES: dict[str, Callable[[RandomShiftingConfig, float], RandomShiftingConfig]] = {
    "p": lambda shifting, value: replace(shifting, probability=value),
    "p_c": lambda shifting, value: replace(shifting, crop_probability=value),
    "r_c": lambda shifting, value: replace(shifting, min_crop=value),
    "r_w": lambda shifting, value: replace(shifting, min_width=value),
}
_DEFAULTS = {"p_c": 0.5, "r_c": 0.7, "r_w": 0.5}


def _row(name: str, values: Mapping[str, float], baseline: str | None = "RMGL") -> Row:
    """RMGL with these values of the parameters; the others are those of the base."""

    def overrides(base: ExperimentConfig) -> ExperimentConfig:
        config = presets.rmgl(base)
        shifting = config.augment.shifting
        for parameter, value in values.items():
            shifting = _CHANGES[parameter](shifting, value)
        return replace(config, augment=replace(config.augment, shifting=shifting))

    return Row(name, overrides, baseline=baseline, points=values)


def _rows(parameter: str, values: tuple[float, ...]) -> tuple[Row, ...]:
    return tuple(_row(f"{parameter}-{value:g}", {parameter: value}) for value in values)


ROWS = (
    _row("RMGL", _DEFAULTS, baseline=None),
    *_rows("p", (0.25, 0.5, 0.75, 1.0)),
    *_rows("p_c", (0.0, 0.1, 0.3, 0.4, 0.6, 0.8, 1.0)),
    *_rows("r_c", (0.3, 0.4, 0.5, 0.6, 0.8, 0.9)),
    *_rows("r_w", (0.3, 0.4, 0.6, 0.7, 0.8, 0.9)),
)

SWEEP = Sweep(
    name="fig7_rsa_parameters",
    title="Parameters of random shifting (Fig. 7)",
    presets=presets.sweep_presets("market1501"),
    rows=ROWS,
    x_label="value of the parameter",
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
