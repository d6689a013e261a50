"""Checkpoints: Orbax writes them in the background; damaged ones are detected and skipped."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import lax
from orbax.checkpoint import checkpoint_managers

from data_prep.errors import ExpectedError
from rmgl_jax.training.step import TrainState

logger = logging.getLogger(__name__)


class CheckpointError(ExpectedError, RuntimeError):
    """A checkpoint could not be written, or none could be read."""


class Restored(NamedTuple):
    """A restored checkpoint."""

    state: TrainState
    step: int
    skipped: tuple[int, ...]
    """Steps of later checkpoints that were damaged."""


@jax.jit
def digest(state: TrainState) -> jax.Array:
    """Computes a 32-bit digest of every bit of a state, on its devices.

    Each 32-bit word counts with an odd weight, modulo 2^32, so that any one changed word changes
    the sum; the weights differ, so that exchanged words and arrays do too. Orbax alone restores a
    flipped bit without an error.
    """
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(state)):
        words = lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
        weights = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1
        odd = jnp.uint32(2654435761 * (2 * number + 1) % 2**32)
        total += odd * jnp.sum(words * weights, dtype=jnp.uint32)
    return total


def _score(metrics: dict[str, float]) -> float:
    return metrics["mean_ap"]


@contextmanager
def open_checkpoints(directory: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens a directory of checkpoints (made if absent) that keeps the `keep` latest and the best.

    Unfinished files of a killed run are removed. The best checkpoint is the one with the greatest
    `mean_ap` among those saved with one. Leaving the context waits until everything is written.

    Raises:
        CheckpointError: on leaving, if a checkpoint could not be written.
    """
    policies = checkpoint_managers
    options = ocp.CheckpointManagerOptions(
        best_fn=_score,
        preservation_policy=policies.AnyPreservationPolicy(
            [
                policies.LatestN(keep),
                policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False),
            ]
        ),
        cleanup_tmp_directories=True,
    )
    _drop_damaged_scores(directory)
    manager = ocp.CheckpointManager(directory.absolute(), options=options)
    try:
        yield manager
        finish(manager)
    except BaseException:
        # Closing often meets the same error again; the first one matters.
        with suppress(Exception):
            manager.close()
        raise
    manager.close()


def _drop_damaged_scores(directory: Path) -> None:
    """Removes unreadable scores, because Orbax reads all of them when it opens the directory."""
    for path in directory.glob("*/metrics/metrics"):
        try:
            _score(json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError):
            logger.warning("The score of the checkpoint %s is damaged.", path.parents[1])
            shutil.rmtree(path.parent, ignore_errors=True)  # Other processes may remove it too.


def save(manager: ocp.CheckpointManager, state: TrainState, mean_ap: float | None = None) -> None:
    """Starts to save a state and returns once it is copied off the device.

    Errors of the previous save (a full disk, for example) are raised here or by `finish`.

    Raises:
        CheckpointError: with the step and the cause.
    """
    step = int(state.step)
    try:
        saved = manager.save(
            step,
            args=ocp.args.StandardSave(state),
            metrics=None if mean_ap is None else {"mean_ap": mean_ap},
            custom_metadata={"digest": int(digest(state))},
        )
    except Exception as error:  # Orbax raises whatever its writer threads met.
        raise _failed(manager, error) from error
    if not saved:  # Orbax skips a step that is not later than all others.
        raise CheckpointError(f"{manager.directory} has a checkpoint of step {step} or later.")


def finish(manager: ocp.CheckpointManager) -> None:
    """Waits until everything is written.

    Raises:
        CheckpointError: a checkpoint could not be written.
    """
    try:
        manager.wait_until_finished()
    except Exception as error:
        raise _failed(manager, error) from error


def _failed(manager: ocp.CheckpointManager, error: Exception) -> CheckpointError:
    manager.reload()  # It no longer lists those that the failed one was to replace.
    kept = manager.all_steps()
    last = f"The last good one is of step {max(kept)}." if kept else "There is no earlier one."
    free = shutil.disk_usage(manager.directory).free
    return CheckpointError(
        f"A checkpoint could not be written to {manager.directory}, where {free / 1e6:,.0f} MB are "
        f"free. {last} The cause: {_first_line(error)}"
    )


def _first_line(error: Exception) -> str:
    """Returns the error without the specification that TensorStore appends."""
    line = next(iter(str(error).strip().splitlines()), "") or repr(error)
    return line.partition(" [tensorstore_spec")[0]


def restore(
    manager: ocp.CheckpointManager, like: TrainState, step: int | None = None
) -> Restored | None:
    """Restores the latest undamaged checkpoint, or that of `step`; None if there is none at all.

    Args:
        manager: see `open_checkpoints`.
        like: a state of the same shapes, whose arrays give the sharding of the restored ones.
        step: the checkpoint to read, without falling back to another.

    Raises:
        CheckpointError: `step` is not there, or every checkpoint is damaged.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    if step is not None and step not in steps:
        raise CheckpointError(
            f"{manager.directory} has no checkpoint of step {step}; it has {sorted(steps)}."
        )
    candidates = steps if step is None else [step]
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    skipped: list[int] = []
    for candidate in candidates:
        try:
            state = _read(manager, candidate, abstract)
            return Restored(state, candidate, tuple(skipped))
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files.
            logger.warning(
                "The checkpoint of step %d cannot be used: %s", candidate, _first_line(error)
            )
            skipped.append(candidate)
    if skipped:
        raise CheckpointError(
            f"No checkpoint in {manager.directory} can be used; those of steps "
            f"{sorted(skipped)} are damaged or of another model. Use another run "
            "directory to start from the beginning."
        )
    return None


def _read(manager: ocp.CheckpointManager, step: int, abstract: TrainState) -> TrainState:
    state = manager.restore(step, args=ocp.args.StandardRestore(abstract))
    expected = (manager.metadata(step).custom_metadata or {}).get("digest")
    found = int(digest(state))
    if found != expected:
        raise CheckpointError(f"its digest is {found}, not the {expected} it was saved with")
    return state
