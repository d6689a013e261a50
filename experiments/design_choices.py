"""Choices that the paper leaves open: two-branch RMGL with one change per row.

    python -m experiments.design_choices --source DIR --weights resnet50.pth --preset gpu --seeds 3
    python -m experiments.design_choices --preset demo --seeds 3

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, for a quick check

The paper has no numbers for these. Measured results are in docs/reproduction.md, and the defaults
that followed in docs/decisions.md.
"""

from collections.abc import Callable
from dataclasses import replace

from rmgl_jax.config import ExperimentConfig, ModelConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import Row, Sweep


def _row(name: str, change: Callable[[ModelConfig], ModelConfig]) -> Row:
    """RMGL with all its components, and one change in its network."""

    def overrides(base: ExperimentConfig) -> ExperimentConfig:
        config = presets.rmgl(base)
        return replace(config, model=change(config.model))

    return Row(name, overrides, baseline="RMGL")


ROWS = (
    Row("RMGL", presets.rmgl),
    # Does the receptive path have a global feature (Eq. 4, s = 0)?
    _row("no-receptive-global", lambda model: replace(model, receptive_global=False)),
    # When and where is ABP used?
    _row("abp-in-testing-only", lambda model: replace(model, abp="test")),
    _row("no-abp", lambda model: replace(model, abp="off")),
    _row("abp-on-both-paths", lambda model: replace(model, abp_paths=("original", "receptive"))),
    # How is a stripe pooled? The default is mean for balanced stripes and max for uniform ones.
    _row("uniform-stripes-average", lambda model: replace(model, uniform_pool="mean")),
    _row("balanced-stripes-maximum", lambda model: replace(model, balanced_pool="max")),
)

SWEEP = Sweep(
    name="design_choices",
    title="Choices that the paper leaves open",
    presets=presets.sweep_presets("market1501"),
    rows=ROWS,
    note="RMGL is (2, 3) with both paths and their global features, ABP on the original path in "
    "training and testing, max pooling of uniform stripes and average pooling of balanced ones.",
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
