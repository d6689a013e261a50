"""A model, an experiment and images so small that a step takes milliseconds."""

from dataclasses import replace

import numpy as np

from rmgl_jax.config import ExperimentConfig, ModelConfig, OptimizerConfig, TrainConfig

PERSONS, IMAGES = 4, 2
KEY = 8
"""Seed of the augmentation, with which rounding decides no close call in three steps."""


def tiny_config(granularities=(2,), **train) -> ExperimentConfig:
    """Both paths, 6 identities of 96x32, and a rate at which three steps show.

    One branch unless more are asked for, because the tests' time goes into compiling. The rate is
    low enough that rounding does not grow in three steps.
    """
    return ExperimentConfig(
        dataset="tiny",
        model=ModelConfig(
            num_classes=6,
            image_size=(96, 32),
            granularities=granularities,
            depth=(1, 1, 1, 1),
            width=4,
            embed_dim=8,
        ),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup_epochs=0, decay_epochs=(2,)),
        train=TrainConfig(**({"epochs": 3, "num_ids": PERSONS, "num_instances": IMAGES} | train)),
    )


def small_config(**train) -> ExperimentConfig:
    """`tiny_config` with a network that compiles in half the time.

    It ends at res4 and has one path, whose stripes are folded, unfolded and balanced.
    """
    config = tiny_config(**train)
    model = replace(
        config.model,
        last_stage="res4",
        paths=("receptive",),
        receptive_abp="always",
        receptive_pool="mean",
    )
    return replace(config, model=model)


def tiny_batch(seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of 4 persons x 2 images."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.permutation(6)[:PERSONS], IMAGES).astype(np.int32)
    return {"images": tiny_images(labels, seed), "labels": labels}


def tiny_images(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Noise around a color of the identity's own, uint8 `[M, 96, 32, 3]`."""
    rng = np.random.default_rng(seed)
    colors = np.random.default_rng(99).integers(40, 216, (int(labels.max()) + 1, 3, 1, 1, 3))
    bands = np.repeat(colors[labels], 32, axis=2)[:, :, :, 0].reshape(len(labels), 96, 1, 3)
    noise = rng.integers(-30, 31, (len(labels), 96, 32, 3))
    return np.clip(bands + noise, 0, 255).astype(np.uint8)
