"""The work directory of a run that was never run: its configuration and some checkpoints."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.training.checkpoints import open_checkpoints, save
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.run_directory import config_digest, init_run_directory
from rmgl_jax.training.step import TrainState, state_shapes
from tests.tiny import tiny_config
from tests.tiny_model import random_like


def run_config(dataset: str) -> ExperimentConfig:
    """Of the smallest network: one branch of one path, for images of 32x16."""
    config = tiny_config()
    model = replace(
        config.model,
        image_size=(32, 16),
        paths=("original",),
        original_abp="off",
        width=2,
        num_classes=3,
    )
    return replace(config, dataset=dataset, model=model)


def random_state(config: ExperimentConfig, step: int) -> TrainState:
    """A state after some steps, with random weights, which needs no compilation."""
    shapes = state_shapes(config.model, make_optimizer(config.optimizer, 1))
    return shapes.replace(
        step=jnp.int32(step),
        params=random_like(shapes.params, seed=step),
        batch_stats=random_like(shapes.batch_stats, seed=step),
        opt_state=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.opt_state),
    )


def write_run(workdir: Path, dataset: str, scores: dict[int, float | None]) -> ExperimentConfig:
    """A run with a checkpoint at each step, other weights in each, of the given mAP."""
    config = run_config(dataset)
    init_run_directory(config, workdir)
    with open_checkpoints(workdir / "checkpoints", keep=len(scores)) as manager:
        for step, mean_ap in scores.items():
            save(manager, random_state(config, step), mean_ap, config_digest(workdir))
    return config
