"""Augmentations on the baseline, for one branch and two (Table VI).

    python -m experiments.table6_augmentation --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.table6_augmentation --dataset dukemtmc_reid --source DIR --preset gpu
    python -m experiments.table6_augmentation --preset demo --seeds 3 --rows 2-stripe 2-stripe+RE

RCJ is random color jitter, RC random cropping, RE random erasing, RCRS crop, resize and shift,
RSA random shifting. The two baselines are those of Table V, to compare the twelve rows with.

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, seconds: to see that everything works

The paper says that each was "tuned to its best setting", not which that was. Here each acts on half
of the images with the parameters of its configuration's defaults, RSA as in RMGL. Not measured with
this code.
"""

from dataclasses import replace
from functools import partial

from rmgl_jax.config import (
    ColorJitterConfig,
    CropResizeShiftConfig,
    ExperimentConfig,
    RandomCropConfig,
    RandomErasingConfig,
)
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.results import Row, Sweep, numbers
from rmgl_jax.experiment.sweep import main


def _augmented(
    base: ExperimentConfig, stripes: tuple[int, ...], rsa: bool = False, **others: object
) -> ExperimentConfig:
    config = presets.components(base, stripes, rsa=rsa)
    return replace(config, augment=replace(config.augment, **others))


def _row(
    name: str, market: tuple[float, float], duke: tuple[float, float], **augment: object
) -> Row:
    stripes = {"2-stripe": (2,), "2+3-stripe": (2, 3)}
    # "2+3-stripe+RE" is the baseline "2+3-stripe" and what follows.
    baseline = next(start for start in stripes if name.startswith(start))
    return Row(
        name=name,
        change=partial(_augmented, stripes=stripes[baseline], **augment),
        paper=numbers({"market1501": market, "dukemtmc_reid": duke}),
        against=baseline if augment else None,
    )


_RCJ = {"jitter": ColorJitterConfig(probability=0.5)}
_RC = {"crop": RandomCropConfig(probability=0.5)}
_RE = {"erasing": RandomErasingConfig(probability=0.5)}
_RCRS = {"crop_resize_shift": CropResizeShiftConfig(probability=0.5)}
_RSA = {"rsa": True}

ROWS = (
    _row("2-stripe", (85.6, 95.0), (76.5, 88.1)),
    _row("2-stripe+RCJ", (85.8, 94.9), (76.4, 88.1), **_RCJ),
    _row("2-stripe+RC", (85.6, 94.8), (76.6, 88.0), **_RC),
    _row("2-stripe+RE", (86.4, 95.0), (77.1, 88.5), **_RE),
    _row("2-stripe+RCRS", (86.0, 95.1), (76.8, 88.0), **_RCRS),
    _row("2-stripe+RSA", (86.8, 95.2), (77.4, 88.9), **_RSA),
    _row("2-stripe+RSA+RE", (87.3, 95.4), (77.8, 89.3), **_RSA, **_RE),
    _row("2+3-stripe", (87.1, 95.5), (79.0, 89.3)),
    _row("2+3-stripe+RCJ", (87.2, 95.3), (79.2, 89.3), **_RCJ),
    _row("2+3-stripe+RC", (87.3, 95.3), (79.3, 89.2), **_RC),
    _row("2+3-stripe+RE", (88.0, 95.7), (79.5, 89.5), **_RE),
    _row("2+3-stripe+RCRS", (87.7, 95.6), (79.4, 89.3), **_RCRS),
    _row("2+3-stripe+RSA", (88.3, 95.9), (79.9, 89.5), **_RSA),
    _row("2+3-stripe+RSA+RE", (89.0, 96.1), (80.2, 89.5), **_RSA, **_RE),
)

SWEEP = Sweep(
    name="table6_augmentation",
    title="Augmentations (Table VI)",
    presets=presets.of_sweeps("market1501"),
    rows=ROWS,
)

if __name__ == "__main__":
    main(SWEEP, __doc__)
