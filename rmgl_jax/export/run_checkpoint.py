"""Reads checkpoints of a run directory, in which a run may still be training."""

from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from data_prep.errors import ExpectedError, InputError, MissingFileError
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.devices import data_mesh
from rmgl_jax.training import checkpoints
from rmgl_jax.training.checkpoints import CheckpointError
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.run_directory import check_config_digest, read_config
from rmgl_jax.training.scores import best_step, list_steps, read_scores
from rmgl_jax.training.step import TrainState, state_shapes

_ATTEMPTS = 50
"""Most attempts to read while a run replaces its checkpoints."""


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
        InputError: both `step` and `best` are given, no checkpoint was evaluated, a score is lost,
            or `config.json` is not what it was when the checkpoint was saved.
        CheckpointError: there is no checkpoint of `step`, or it is damaged.
    """
    if best and step is not None:
        raise InputError(f"Give either the best checkpoint or that of step {step}, not both.")
    config = read_config(workdir)
    directory = workdir / "checkpoints"
    like = _abstract_state(config)  # Takes longer than reading does.
    for _ in range(_ATTEMPTS):
        before = list_steps(directory)
        if not before:
            raise MissingFileError(f"{workdir} has no checkpoints yet.")
        try:
            restored = _restore(directory, like, step, best)
        except (ExpectedError, OSError):
            # What the run removed or replaced meanwhile was not damaged.
            if list_steps(directory) == before:
                raise
            continue
        now = list_steps(directory)
        if now == before or not (restored.skipped or (best and set(before) - set(now))):
            check_config_digest(workdir, restored.config_digest, restored.step)
            return config, restored.state
    raise CheckpointError(
        f"The run removes its checkpoints in {directory} faster than they can be read."
    )


def _restore(directory: Path, like: Any, step: int | None, best: bool) -> checkpoints.Restored:
    with checkpoints.open_for_reading(directory) as manager:
        if best:
            step = best_step(read_scores(directory), manager.all_steps())
            if step is None:
                raise InputError(
                    f"None of the checkpoints in {directory} was evaluated, so that none is the "
                    f"best; they are of steps {sorted(manager.all_steps())}."
                )
        restored = checkpoints.restore(manager, like, step)
    if restored is None:
        raise MissingFileError(f"{directory} has no checkpoints yet.")
    return restored


def _abstract_state(config: ExperimentConfig) -> Any:
    """Returns shapes of the run's state, with each array whole on every device."""
    # No shape depends on the length of an epoch.
    optimizer = make_optimizer(config.optimizer, steps_per_epoch=1)
    state = state_shapes(config.model, optimizer)
    replicated = NamedSharding(data_mesh(), PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), state
    )
