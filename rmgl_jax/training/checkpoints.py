"""Checkpoints: Orbax writes them in the background; damaged ones are detected and skipped."""

import errno
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

from data_prep.errors import ExpectedError, InputError
from rmgl_jax.training.scores import (
    SCORES_NAME,
    PreserveBest,
    custom_metadata,
    record_score,
    repair_scores,
)
from rmgl_jax.training.step import TrainState

logger = logging.getLogger(__name__)

_MACHINE_ERRORS = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class CheckpointError(ExpectedError, RuntimeError):
    """A checkpoint could not be written, or none could be read."""


class NonFiniteStateError(CheckpointError):
    """A state has values that are NaN or infinite, and was not saved."""


class Restored(NamedTuple):
    """A restored checkpoint."""

    state: TrainState
    step: int
    skipped: tuple[int, ...]
    """Steps of later checkpoints that were damaged."""
    config_digest: str | None = None
    """Digest of the configuration it was saved with; None if an earlier version saved it."""


def digest(state: TrainState) -> jax.Array:
    """Computes a 32-bit digest of every bit of a state, on its devices.

    Each 32-bit word counts with an odd weight, modulo 2^32, so that any one changed word changes
    the sum; the weights differ, so that exchanged words and arrays do too. Orbax alone restores a
    flipped bit without an error.
    """
    return _summarize(state)[0]


@jax.jit
def _summarize(state: TrainState) -> tuple[jax.Array, jax.Array]:
    """Returns the digest of a state, and whether all its values are finite."""
    total, finite = jnp.uint32(0), jnp.bool_(True)
    for number, leaf in enumerate(jax.tree.leaves(state)):
        words = lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
        weights = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1
        odd = jnp.uint32(2654435761 * (2 * number + 1) % 2**32)
        total += odd * jnp.sum(words * weights, dtype=jnp.uint32)
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            finite &= jnp.isfinite(leaf).all()
    return total, finite


def check_path(directory: Path) -> None:
    """Checks that Orbax can read what it writes below a directory.

    Raises:
        InputError: the absolute path has a character of file patterns, which Orbax searches by.
    """
    found = sorted(set(str(directory.absolute())) & set("[*?\\"))
    if found:
        raise InputError(
            f"Checkpoints cannot be kept below {directory.absolute()}: its path must not contain "
            f"{' or '.join(found)}."
        )


@contextmanager
def open_checkpoints(directory: Path, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens a directory of checkpoints (made if absent) that keeps the `keep` latest and the best.

    Unfinished files of a killed run are removed. The best checkpoint is the one with the greatest
    score of `scores.json` when the next one is saved. Leaving the context waits until everything
    is written.

    Raises:
        InputError: see `check_path`.
        CheckpointError: on leaving, if a checkpoint could not be written.
    """
    check_path(directory)
    directory = directory.absolute()
    if jax.process_index() == 0:
        repair_scores(directory)
    policies = checkpoint_managers
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(keep), PreserveBest(directory)]
        ),
        cleanup_tmp_directories=True,
    )
    manager = ocp.CheckpointManager(directory, options=options, item_handlers=_item_handler())
    try:
        yield manager
        finish(manager)
    except BaseException:
        # Closing often meets the same error again; the first one matters.
        with suppress(Exception):
            manager.close()
        raise
    manager.close()


@contextmanager
def open_for_reading(directory: Path) -> Iterator[ocp.CheckpointManager]:
    """Opens a directory of checkpoints without writing to it, as a run may be saving there.

    Raises:
        InputError: see `check_path`.
    """
    check_path(directory)
    # Nothing but the names of the checkpoints is read in advance.
    options = ocp.CheckpointManagerOptions(
        read_only=True, create=False, save_interval_steps=0, lightweight_initialize=True
    )
    with ocp.CheckpointManager(
        directory.absolute(), options=options, item_handlers=_item_handler()
    ) as manager:
        yield manager


def _item_handler() -> ocp.CheckpointHandler:
    """States that a checkpoint is a single item.

    Orbax would guess it from the first checkpoint that it meets: an incomplete one would make all
    others unreadable.
    """
    return ocp.StandardCheckpointHandler()


def save(
    manager: ocp.CheckpointManager,
    state: TrainState,
    mean_ap: float | None = None,
    config_digest: str | None = None,
) -> None:
    """Starts to save a state and returns once it is copied off the device.

    Errors of the previous save (a full disk, for example) are raised here or by `finish`.

    Args:
        manager: see `open_checkpoints`.
        state: the state to save.
        mean_ap: score of the state if it is known; `record_score` adds it later.
        config_digest: digest of the configuration, recorded with the checkpoint.

    Raises:
        NonFiniteStateError: with the step and the arrays.
        CheckpointError: with the step and the cause.
    """
    step = int(state.step)
    state_digest, finite = _summarize(state)
    if not finite:
        raise _not_finite(manager, state)
    metadata: dict[str, int | str] = {"digest": int(state_digest), "scores": SCORES_NAME}
    if config_digest is not None:
        metadata["config_digest"] = config_digest
    try:
        if mean_ap is not None and jax.process_index() == 0:
            record_score(Path(manager.directory), step, mean_ap)
        saved = manager.save(step, args=ocp.args.StandardSave(state), custom_metadata=metadata)
    except Exception as error:  # Orbax raises whatever its writer threads met.
        raise _failed(manager, error) from error
    if not saved:  # Orbax skips a step that is not later than all others.
        raise CheckpointError(f"{manager.directory} has a checkpoint of step {step} or later.")


def _not_finite(manager: ocp.CheckpointManager, state: TrainState) -> NonFiniteStateError:
    leaves = [
        (path, leaf)
        for path, leaf in jax.tree.leaves_with_path(state)
        if jnp.issubdtype(leaf.dtype, jnp.floating)
    ]
    bad = [jax.tree_util.keystr(path) for path, leaf in leaves if not jnp.isfinite(leaf).all()]
    last = manager.latest_step()
    return NonFiniteStateError(
        f"The state of step {int(state.step)} is not saved, because {len(bad)} of its "
        f"{len(leaves)} arrays have values that are not finite, the first is {bad[0]}. "
        + ("No checkpoint was saved yet." if last is None else f"The last one is of step {last}.")
    )


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
        CheckpointError: `step` is not there, every checkpoint is damaged, or the machine does not
            let one be read (permissions, memory).
    """
    steps = sorted(manager.all_steps(), reverse=True)
    if step is not None and step not in steps:
        raise CheckpointError(
            f"{manager.directory} has no checkpoint of step {step}; it has {sorted(steps)}."
        )
    candidates = steps if step is None else [step]
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    skipped: dict[int, str] = {}
    for candidate in candidates:
        try:
            state, config_digest = _read(manager, candidate, abstract)
            return Restored(state, candidate, tuple(skipped), config_digest)
        except Exception as error:  # Orbax and TensorStore raise many kinds for damaged files.
            reason = _first_line(error)
            if _is_of_machine(error):
                raise CheckpointError(
                    f"The checkpoint of step {candidate} in {manager.directory} cannot be read: "
                    f"{reason}"
                ) from error
            if (Path(manager.directory) / str(candidate)).exists():  # Not removed by a run.
                logger.warning("The checkpoint of step %d cannot be used: %s", candidate, reason)
            skipped[candidate] = reason[:300]
    if skipped:
        reasons = "; ".join(f"step {number}: {skipped[number]}" for number in sorted(skipped))
        raise CheckpointError(
            f"No checkpoint in {manager.directory} can be used, those of steps {sorted(skipped)} "
            f"are damaged or of another model. {reasons}"
        )
    return None


def _read(
    manager: ocp.CheckpointManager, step: int, abstract: TrainState
) -> tuple[TrainState, str | None]:
    state = manager.restore(step, args=ocp.args.StandardRestore(abstract))
    recorded = custom_metadata(Path(manager.directory), step)
    found, finite = _summarize(state)
    if int(found) != recorded.get("digest"):
        raise CheckpointError(
            f"its digest is {int(found)}, not the {recorded.get('digest')} it was saved with"
        )
    if not finite:
        raise CheckpointError("it has values that are not finite")
    return state, recorded.get("config_digest")


def _is_of_machine(error: Exception) -> bool:
    """Tells errors of the machine, which say nothing about the checkpoint, from damage."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) in _MACHINE_ERRORS:
        return True
    return any(status in str(error) for status in ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED"))
