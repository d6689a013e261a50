"""What the paper leaves open, each choice against the default: two-branch RMGL with one change.

    python -m experiments.design_choices --source DIR --weights resnet50.pth --preset gpu --seeds 3
    python -m experiments.design_choices --preset demo --seeds 3

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, seconds: to see that everything works

The paper has no numbers of these. What was measured, and which defaults followed, is in
docs/reproduction.md and docs/decisions.md.
"""

from dataclasses import replace
from functools import partial

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.results import Row, Sweep
from rmgl_jax.experiment.sweep import main


def _with(base: ExperimentConfig, **model: object) -> ExperimentConfig:
    """RMGL with all its components, and one choice in its network."""
    config = presets.rmgl(base)
    return replace(config, model=replace(config.model, **model))


def _row(name: str, **model: object) -> Row:
    return Row(name, partial(_with, **model), against="RMGL" if model else None)


ROWS = (
    _row("RMGL"),
    # Has the receptive path a global feature (Eq. 4, s = 0)?
    _row("no-receptive-global", receptive_global=False),
    # When and where is ABP?
    _row("abp-in-testing-only", abp="test"),
    _row("no-abp", abp="off"),
    _row("abp-on-both-paths", abp_paths=("original", "receptive")),
    # How is a stripe pooled? By default balanced ones by the average, uniform ones by the maximum.
    _row("uniform-stripes-average", uniform_pool="mean"),
    _row("balanced-stripes-maximum", balanced_pool="max"),
)

SWEEP = Sweep(
    name="design_choices",
    title="Choices that the paper leaves open",
    presets=presets.of_sweeps("market1501"),
    rows=ROWS,
    note="RMGL is (2, 3) with both paths and their global features, ABP on the original path in "
    "training and testing, uniform stripes pooled by the maximum, balanced ones by the average.",
)

if __name__ == "__main__":
    main(SWEEP, __doc__)
