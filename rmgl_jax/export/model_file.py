"""A trained network, read from the work directory of its run, which may still be going on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import NamedSharding, PartitionSpec

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.devices import data_mesh
from rmgl_jax.training import checkpoints
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.run_directory import read_config
from rmgl_jax.training.step import create_state


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """What a run has made."""

    config: ExperimentConfig
    """Of the run."""
    variables: dict[str, Any]
    """`params` and `batch_stats`, on all devices."""
    step: int
    """Training steps they have seen."""
    digest: str
    """Fingerprint of the whole training state, eight hexadecimal digits."""


def load_model(workdir: Path, step: int | None = None, best: bool = False) -> TrainedModel:
    """Reads a checkpoint and writes nothing: the run may be saving the next one meanwhile.

    Args:
        workdir: of the run: its `config.json` and `checkpoints/`.
        step: the one to read; by default the latest undamaged one.
        best: reads the one with the greatest mAP (step) among those that were evaluated.

    Raises:
        FileNotFoundError: if `workdir` is not of a run, or has no checkpoint yet.
        ValueError: if both `step` and `best` are given, or none was evaluated.
        checkpoints.CheckpointError: if there is none of `step`, or it is damaged.
    """
    if best and step is not None:
        raise ValueError(f"Either the best checkpoint or that of step {step}, not both.")
    config = read_config(workdir)
    directory = (workdir / "checkpoints").absolute()
    if not directory.is_dir():
        raise FileNotFoundError(f"{workdir} has no checkpoints yet.")
    # Scores are read only when they are asked for.
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
        raise FileNotFoundError(f"{workdir} has no checkpoints yet.")
    state = restored.state
    return TrainedModel(
        config=config,
        variables={"params": state.params, "batch_stats": state.batch_stats},
        step=restored.step,
        digest=f"{int(checkpoints.digest(state)):08x}",
    )


def _best_step(manager: ocp.CheckpointManager) -> int:
    scores = {step: manager.metrics(step) for step in manager.all_steps()}
    scores = {step: score["mean_ap"] for step, score in scores.items() if score}
    if not scores:
        raise ValueError(
            f"None of the checkpoints in {manager.directory} was evaluated, so none is the best; "
            f"there are those of steps {sorted(manager.all_steps())}."
        )
    return max(scores, key=lambda step: (scores[step], step))


def _abstract_state(config: ExperimentConfig) -> Any:
    """Shapes of the run's state, each array to lie whole on every device."""
    # No shape depends on the length of an epoch.
    optimizer = make_optimizer(config.optimizer, steps_per_epoch=1)
    state = jax.eval_shape(lambda: create_state(config.model, optimizer, seed=0))
    everywhere = NamedSharding(data_mesh(), PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), state
    )
