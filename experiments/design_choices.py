"""Choices that the paper leaves open: one change per row.

    python -m experiments.design_choices --source DIR --weights resnet50.pth --preset gpu --seeds 3
    python -m experiments.design_choices --preset demo --seeds 3

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, for a quick check

Two-branch RMGL. The paper has no numbers for these. Measured results are in docs/reproduction.md,
and the defaults that followed in docs/decisions.md.
"""

from dataclasses import replace
from typing import Any

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import Row, Sweep


def _model(name: str, start: str = "RMGL", **changes: Any) -> Row:
    """RMGL with changes in its network, compared with the row `start` that they are based on."""

    def overrides(base: ExperimentConfig) -> ExperimentConfig:
        config = presets.rmgl(base)
        return replace(config, model=replace(config.model, **changes))

    return Row(name, overrides, baseline=start)


def _shifting(probability: float) -> Row:
    def overrides(base: ExperimentConfig) -> ExperimentConfig:
        return presets.with_rsa(presets.rmgl(base), probability)

    return Row(f"rsa-p-{probability:g}", overrides, baseline="RMGL")


def _normalized_triplet(base: ExperimentConfig) -> ExperimentConfig:
    config = presets.rmgl(base)
    return replace(config, loss=replace(config.loss, triplet_normalized=True))


_MAX, _OFF_MAX = "original-stripes-max", "abp-off-max"

ROWS = (
    Row("RMGL", presets.rmgl),
    # Does the receptive path have a global feature (Eq. 4, s = 0)?
    _model("no-receptive-global", receptive_global=False),
    # When are the stripes of the original path balanced, with either reduction within a stripe?
    _model("abp-off", original_abp="off"),
    _model("abp-in-testing-only", original_abp="test"),
    _model(_MAX, original_pool="max"),
    _model(_OFF_MAX, _MAX, original_abp="off", original_pool="max"),
    _model("abp-in-testing-only-max", _MAX, original_abp="test", original_pool="max"),
    # Trained as abp-off-max, and evaluated with Eq. 11.
    _model(
        "abp-in-testing-only-max-then-mean",
        _OFF_MAX,
        original_abp="test",
        original_pool="max",
        original_test_pool="mean",
    ),
    # The same for the receptive path.
    _model("receptive-stripes-mean", receptive_pool="mean"),
    _model("receptive-abp", receptive_abp="always"),
    # On how many images does RSA act?
    *(_shifting(probability) for probability in (0.25, 0.5, 0.75, 1.0)),
    # The heads and the triplet loss.
    _model("reduction-relu", reduction_relu=True),
    Row("normalized-triplet", _normalized_triplet, baseline="RMGL"),
)

SWEEP = Sweep(
    name="design_choices",
    title="Choices that the paper leaves open",
    presets=presets.sweep_presets("market1501"),
    rows=ROWS,
    note="RMGL is (2, 3) with both paths and their global features, ABP on the original path in "
    "training and testing, average pooling of that path's stripes, max pooling of the receptive "
    "path's, and the preset's probability of RSA (one of the rsa-p rows repeats it).",
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
