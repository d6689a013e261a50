"""The training loop: batches in, metrics, evaluations and checkpoints out."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import CheckpointManager
from rich.console import Console

from data_prep.errors import ExpectedError, InputError
from rmgl_jax.config import ExperimentConfig, TrainConfig
from rmgl_jax.data.sampler import identity_batches, steps_per_epoch
from rmgl_jax.data.split import Split
from rmgl_jax.training import checkpoints
from rmgl_jax.training.logger import MetricLogger, missing_records, read_metrics
from rmgl_jax.training.run_directory import (
    check_config_digest,
    config_digest,
    init_run_directory,
)
from rmgl_jax.training.scores import record_score
from rmgl_jax.training.step import ParallelStep, TrainState, make_train_step
from rmgl_jax.training.stop_signals import end_on_sigterm, stop_signals
from rmgl_jax.training.throughput import Clock, counted, peak_flops, step_flops

Initialize = Callable[[dict[str, Any]], dict[str, Any]]
"""Maps fresh variables (`params`, `batch_stats`) to those that training starts from."""
Evaluate = Callable[[dict[str, Any]], dict[str, float]]
"""Maps variables to metrics by name. `mean_ap` decides which checkpoint is the best."""
MakeStep = Callable[[ExperimentConfig, int], ParallelStep]
"""Makes the step of a configuration, given the number of steps of an epoch."""


class NonFiniteLossError(ExpectedError, RuntimeError):
    """The loss became NaN or infinite."""


def train_loop(
    config: ExperimentConfig,
    split: Split,
    workdir: Path,
    *,
    initialize: Initialize | None = None,
    evaluate: Evaluate | None = None,
    console: Console | None = None,
    on_step: Callable[[int], None] | None = None,
    make_step: MakeStep = make_train_step,
) -> TrainState:
    """Trains to the end of `config.train.epochs`, resuming from the last checkpoint.

    The run is a pure function of `config`, `split` and what `initialize` loads: a run that was
    interrupted at any step and resumed ends with the same bits. All processes call this with
    the same arguments; process 0 writes the logs.

    Args:
        config: the experiment.
        split: training images.
        workdir: run directory; gets `config.json`, `metrics.jsonl`, `tensorboard/`, `checkpoints/`.
        initialize: loads a pretrained backbone, for example. Not called if there is a checkpoint.
        evaluate: called every `config.train.evaluate_every` epochs and at the end, after the state
            is saved; None evaluates nothing.
        console: shows the progress bar and messages; None is silent.
        on_step: called after each step with the number of steps done.
        make_step: makes the training step; a cheap one in tests of the loop.

    Returns:
        The state after the last step.

    Raises:
        InputError: the split does not fit the model (labels, image size) or the batch.
        ConfigChangedError: `workdir` holds a run of another configuration.
        NonFiniteLossError: with step, terms and the last good checkpoint.
        CheckpointError: a checkpoint cannot be written, or none can be read.
        NonFiniteStateError: the state to save has values that are not finite.
        Interrupted: on SIGTERM, after saving.
        KeyboardInterrupt: on Ctrl-C, after saving.
    """
    _check_split(config, split)
    is_main_process = jax.process_index() == 0
    settings = config.train
    per_epoch = steps_per_epoch(split.labels, settings.num_ids, settings.num_instances)
    total = settings.epochs * per_epoch
    init_run_directory(config, workdir)

    step = make_step(config, per_epoch)
    key = jax.random.key(settings.seed)
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(
            checkpoints.open_checkpoints(workdir / "checkpoints", settings.keep_checkpoints)
        )
        state, start, messages = _start(step, total, manager, initialize, workdir)
        records = read_metrics(workdir) if is_main_process else []
        damage = missing_records(records, start) if is_main_process else None

        def is_due(done: int) -> bool:
            epoch, rest = divmod(done, per_epoch)
            every = settings.evaluate_every
            return done == total or (done > 0 and rest == 0 and every > 0 and epoch % every == 0)

        # A run that was stopped while it evaluated a step starts with that.
        evaluated = _from_main_process(
            any(record["kind"] == "eval" and record["step"] == start for record in records)
        )
        evaluate_first = evaluate is not None and is_due(start) and not evaluated
        if start >= total and not evaluate_first:
            if console is not None and damage is not None:
                console.print(damage, highlight=False)
            return state
        logger: MetricLogger | None = None
        if is_main_process:
            logger = stack.enter_context(MetricLogger(workdir, total, start, console))
        if logger is not None:
            for message in (*messages, *filter(None, [damage])):
                logger.log(message)

        def evaluate_step(done: int) -> None:
            assert evaluate is not None
            if done >= total:
                checkpoints.finish(manager)
                end_on_sigterm()
            values = evaluate({"params": state.params, "batch_stats": state.batch_stats})
            if logger is not None:
                if "mean_ap" in values:
                    record_score(workdir / "checkpoints", done, values["mean_ap"])
                logger.write(done, values, "eval")
                shown = " · ".join(f"{name} {value:.4f}" for name, value in values.items())
                logger.log(f"epoch {done // per_epoch}: {shown}")

        if evaluate_first:
            evaluate_step(start)
        if start >= total:
            return state
        batches = training_batches(settings, split, start, jax.process_index(), jax.process_count())
        batch = step.put(next(batches))
        lowered = step.run.lower(state, batch, key)
        # Compiled once, ahead of time: another shape is an error instead of a second program.
        run = lowered.compile()
        peak, flops = peak_flops(jax.devices()[0].device_kind, config.model.dtype), None
        if peak:
            if counted(config) != config:
                lowered = make_step(counted(config), per_epoch).run.lower(state, batch, key)
            flops = step_flops(lowered, step.flops_shards)
        clock = Clock(settings.num_ids * settings.num_instances, flops, peak)
        written_config = config_digest(workdir)
        stop = stack.enter_context(stop_signals())

        def report(done: int, metrics: dict[str, jax.Array]) -> None:
            values = _checked(done, metrics, manager.latest_step()) | clock.tick()
            if logger is not None:
                logger.write(done, values, "train")
                epoch = f"{(done - 1) // per_epoch + 1}/{settings.epochs}"
                logger.update_progress(done, epoch, _describe(done, total, values))

        pending: tuple[int, dict[str, jax.Array]] | None = None
        for done in range(start + 1, total + 1):
            with jax.profiler.StepTraceAnnotation("train", step_num=done):
                state, metrics = run(state, batch, key)
            if done < total:
                batch = step.put(next(batches))
            # The device works on this step while the host reads the one before.
            if pending is not None:
                report(*pending)
            pending = (done, metrics)
            if on_step is not None:
                on_step(done)

            epoch, rest = divmod(done, per_epoch)
            stopping = stop.is_due(done)
            evaluating = evaluate is not None and is_due(done)
            at_checkpoint = rest == 0 and epoch % settings.checkpoint_every == 0
            if not (done == total or stopping or evaluating or at_checkpoint):
                continue
            # Nothing is saved or evaluated before its own loss is known to be finite.
            report(*pending)
            pending = None
            # An evaluation can take long or fail; its epoch must not be lost.
            checkpoints.save(manager, state, config_digest=written_config)
            if stopping:
                checkpoints.finish(manager)
                if logger is not None and stop.signal != signal.SIGINT:
                    logger.log(f"Stopped by SIGTERM; the state of step {done} is saved.")
                raise stop.error(done)
            if evaluating:
                with stop.at_once(done):
                    evaluate_step(done)
            clock.restart()
    return state


def _start(
    step: ParallelStep,
    total: int,
    manager: CheckpointManager,
    initialize: Initialize | None,
    workdir: Path,
) -> tuple[TrainState, int, list[str]]:
    """Returns the state to start from, its step, and messages about it."""
    fresh = step.create()
    restored = checkpoints.restore(manager, step.replicate(fresh))
    if restored is None:
        if initialize is not None:
            variables = initialize({"params": fresh.params, "batch_stats": fresh.batch_stats})
            fresh = fresh.replace(params=variables["params"], batch_stats=variables["batch_stats"])
        return step.replicate(fresh), 0, []
    check_config_digest(workdir, restored.config_digest, restored.step)
    messages = [f"Resuming from step {restored.step} of {total}."]
    for damaged in restored.skipped:
        # This step will be saved again.
        manager.delete(damaged)
        messages.insert(0, f"The checkpoint of step {damaged} was damaged and is removed.")
    return step.replicate(restored.state), restored.step, messages


def _from_main_process(value: bool) -> bool:
    """Returns the value of process 0, which alone reads the log."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def _checked(done: int, metrics: dict[str, jax.Array], last_good: int | None) -> dict[str, float]:
    """Waits for a step and returns its metrics, after checking that the loss is finite."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    if not math.isfinite(values["loss"]):
        terms = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        last = (
            "No checkpoint was saved yet."
            if last_good is None
            else f"The last good checkpoint is of step {last_good}."
        )
        raise NonFiniteLossError(f"The loss of step {done} is {values['loss']} ({terms}). {last}")
    return values


def _describe(done: int, total: int, values: dict[str, float]) -> str:
    text = (
        f"step {done}/{total} · loss {values['loss']:.3f} = ce {values['cross_entropy']:.3f} "
        f"+ triplet {values['triplet']:.3f} · lr {values['learning_rate']:.2e}"
    )
    if "images_per_second" in values:
        text += f" · {values['images_per_second']:.0f} images/s"
    if "mfu" in values:
        text += f" · MFU {values['mfu']:.1%}"
    return text


def _check_split(config: ExperimentConfig, split: Split) -> None:
    if split.num_classes != config.model.num_classes:
        raise InputError(
            f"The classifier has num_classes={config.model.num_classes}, but "
            f"{split.dataset} {split.split} has {split.num_classes} identities."
        )
    if tuple(split.images.shape[1:3]) != config.model.image_size:
        raise InputError(
            f"The images are {tuple(split.images.shape[1:3])}, but the model requires "
            f"image_size={config.model.image_size}."
        )


def training_batches(
    config: TrainConfig, split: Split, start: int, process_index: int = 0, process_count: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches from step `start` to the end of training.

    They are a function of `config`, `split` and the step alone. Each of several processes gets its
    own P / process_count identities of every batch.

    Args:
        config: P, K, epochs and seed.
        split: training images.
        start: number of steps that are done.
        process_index: index of this process, from 0.
        process_count: number of processes.

    Yields:
        `images`, uint8 [P * K / process_count, H, W, 3], and `labels`, int32.
    """
    ids, instances = config.num_ids, config.num_instances
    per_epoch = steps_per_epoch(split.labels, ids, instances)
    for epoch in range(start // per_epoch, config.epochs):
        batches = identity_batches(
            split.labels, ids, instances, config.seed, epoch, process_index, process_count
        )
        for rows in batches[max(0, start - epoch * per_epoch) :]:
            yield {"images": split.batch(rows), "labels": split.labels[rows]}
