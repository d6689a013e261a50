"""Reads checkpoints of a run directory, in which a run may still be training."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.devices import data_mesh
from rmgl_jax.training import checkpoints
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.run_directory import read_config
from rmgl_jax.training.step import TrainState, create_state


def read_checkpoint(
    workdir: Path, step: int | None = None, best: bool = False
) -> tuple[ExperimentConfig, TrainState]:
    """Reads a checkpoint without writing anything, as the run may be saving the next one.

    Args:
        workdir: run directory with `config.json` and `checkpoints/`.
        step: training step of the checkpoint; by default the latest undamaged one.
        best: Read the checkpoint with the greatest mAP among those that were evaluated.

    Returns:
        The configuration and the training state, whole on every device.

    Raises:
        MissingFileError: `workdir` is not a run directory, or has no checkpoint yet.
        InputError: both `step` and `best` are given, or no checkpoint was evaluated.
        CheckpointError: there is no checkpoint of `step`, or it is damaged.
    """
    if best and step is not None:
        raise InputError(f"Give either the best checkpoint or that of step {step}, not both.")
    config = read_config(workdir)
    missing = MissingFileError(f"{workdir} has no checkpoints yet.")
    directory = (workdir / "checkpoints").absolute()
    if not directory.is_dir():
        raise missing
    # Scores are read on demand only.
    options = ocp.CheckpointManagerOptions(
        read_only=True,
        create=False,
        save_interval_steps=0,
        lightweight_initialize=True,
    )
    with ocp.CheckpointManager(directory, options=options) as manager:
        if best:
            step = _best_step(manager)
        restored = checkpoints.restore(manager, _abstract_state(config), step)
    if restored is None:
        raise missing
    return config, restored.state


def _best_step(manager: ocp.CheckpointManager) -> int:
    metrics = {step: manager.metrics(step) for step in manager.all_steps()}
    scores = {step: found["mean_ap"] for step, found in metrics.items() if found}
    if not scores:
        raise InputError(
            f"None of the checkpoints in {manager.directory} was evaluated, so that none is the "
            f"best; they are of steps {sorted(manager.all_steps())}."
        )
    return max(scores, key=lambda step: (scores[step], step))


def _abstract_state(config: ExperimentConfig) -> Any:
    """Returns shapes of the run's state, with each array whole on every device."""
    # No shape depends on the length of an epoch.
    optimizer = make_optimizer(config.optimizer, steps_per_epoch=1)
    state = jax.eval_shape(lambda: create_state(config.model, optimizer, seed=0))
    replicated = NamedSharding(data_mesh(), PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), state
    )
