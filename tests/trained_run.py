"""The work directory of a run that was never run: its configuration and some checkpoints."""

from dataclasses import replace
from pathlib import Path

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.training.checkpoints import open_checkpoints, save
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.run_directory import config_digest, init_run_directory
from rmgl_jax.training.step import create_state
from tests.tiny import tiny_config


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


def write_run(workdir: Path, dataset: str, scores: dict[int, float | None]) -> ExperimentConfig:
    """A run with a checkpoint at each step, other weights in each, of the given mAP."""
    config = run_config(dataset)
    init_run_directory(config, workdir)
    with open_checkpoints(workdir / "checkpoints", keep=len(scores)) as manager:
        for step, mean_ap in scores.items():
            state = create_state(config.model, make_optimizer(config.optimizer, 1), seed=step)
            save(manager, state.replace(step=state.step + step), mean_ap, config_digest(workdir))
    return config
