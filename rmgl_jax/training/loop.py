"""The training loop: batches in, metrics, evaluations and checkpoints out."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
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
from rmgl_jax.training.logger import MetricLogger
from rmgl_jax.training.run_directory import init_run_directory
from rmgl_jax.training.step import ParallelStep, TrainState, make_train_step
from rmgl_jax.training.throughput import peak_flops, step_flops

Initialize = Callable[[dict[str, Any]], dict[str, Any]]
"""Maps fresh variables (`params`, `batch_stats`) to those that training starts from."""
Evaluate = Callable[[dict[str, Any]], dict[str, float]]
"""Maps variables to metrics by name. `mean_ap` decides which checkpoint is the best."""
MakeStep = Callable[[ExperimentConfig, int], ParallelStep]
"""Makes the step of a configuration, given the number of steps of an epoch."""


class NonFiniteLossError(ExpectedError, RuntimeError):
    """The loss became NaN or infinite."""


class Interrupted(SystemExit):
    """Stopped by SIGTERM after saving the state. The exit status is 143, as shells report it."""


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
        evaluate: called every `config.train.evaluate_every` epochs and at the end; None evaluates
            nothing.
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
        Interrupted: on SIGTERM, after saving.
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
        state, start, messages = _start(step, total, manager, initialize)
        if start >= total:
            return state
        batches = training_batches(settings, split, start, jax.process_index(), jax.process_count())
        batch = step.put(next(batches))
        lowered = step.run.lower(state, batch, key)
        # Compiled once, ahead of time: another shape is an error instead of a second program.
        run = lowered.compile()
        terminated = stack.enter_context(_sigterm())
        logger: MetricLogger | None = None
        if is_main_process:
            logger = stack.enter_context(MetricLogger(workdir, total, start, console))
        if logger is not None:
            for message in messages:
                logger.log(message)
        clock = _Clock(
            settings.num_ids * settings.num_instances,
            step_flops(lowered, step.flops_shards),
            peak_flops(jax.devices()[0].device_kind, config.model.dtype),
        )

        def report(done: int, metrics: dict[str, jax.Array]) -> None:
            values = _checked(done, metrics, manager.latest_step()) | clock.tick()
            if logger is not None:
                logger.write(done, values, "train")
                epoch = f"{(done - 1) // per_epoch + 1}/{settings.epochs}"
                logger.update_progress(done, epoch, _describe(done, total, values))

        pending: tuple[int, dict[str, jax.Array]] | None = None
        for done in range(start + 1, total + 1):
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
            at_end, epoch_ends = done == total, rest == 0
            stopping = _stop_now(terminated, done) and not at_end
            every = settings.evaluate_every
            evaluating = at_end or (epoch_ends and every > 0 and epoch % every == 0)
            evaluate_now = evaluate if evaluating else None
            saving = at_end or stopping or (epoch_ends and epoch % settings.checkpoint_every == 0)
            if not saving and evaluate_now is None:
                continue
            # Nothing is evaluated or saved before its own loss is known to be finite.
            report(*pending)
            pending, mean_ap = None, None
            if evaluate_now is not None:
                values = evaluate_now({"params": state.params, "batch_stats": state.batch_stats})
                mean_ap = values.get("mean_ap")
                if logger is not None:
                    logger.write(done, values, "eval")
                    shown = " · ".join(f"{name} {value:.4f}" for name, value in values.items())
                    logger.log(f"epoch {epoch}: {shown}")
            checkpoints.save(manager, state, mean_ap)
            clock.restart()
            if stopping:
                checkpoints.finish(manager)
                if logger is not None:
                    logger.log(f"Stopped by SIGTERM; the state of step {done} is saved.")
                raise Interrupted(143)
    return state


def _start(
    step: ParallelStep, total: int, manager: CheckpointManager, initialize: Initialize | None
) -> tuple[TrainState, int, list[str]]:
    """Returns the state to start from, its step, and messages about it."""
    fresh = step.create()
    restored = checkpoints.restore(manager, step.replicate(fresh))
    if restored is None:
        if initialize is not None:
            variables = initialize({"params": fresh.params, "batch_stats": fresh.batch_stats})
            fresh = fresh.replace(params=variables["params"], batch_stats=variables["batch_stats"])
        return step.replicate(fresh), 0, []
    messages = [f"Resuming from step {restored.step} of {total}."]
    for damaged in restored.skipped:
        # This step will be saved again.
        manager.delete(damaged)
        messages.insert(0, f"The checkpoint of step {damaged} was damaged and is removed.")
    return step.replicate(restored.state), restored.step, messages


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


class _Clock:
    """Measures images a second and model FLOPs utilization between reported steps."""

    def __init__(self, images: int, flops: float | None, peak: float | None) -> None:
        self._images, self._flops = images, flops
        self._peak = peak and peak * jax.device_count()
        self._last: float | None = None

    def restart(self) -> None:
        """Starts over, after something other than a step took time."""
        self._last = None

    def tick(self) -> dict[str, float]:
        """Returns the speed since the previous call; nothing at the first."""
        now, last = time.perf_counter(), self._last
        self._last = now
        if last is None:
            return {}
        seconds = max(now - last, 1e-9)
        speed = {"images_per_second": self._images / seconds}
        if self._flops and self._peak:
            speed["mfu"] = self._flops / seconds / self._peak
        return speed


@contextlib.contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """Turns SIGTERM into a flag while the loop runs; signals reach the main thread only."""
    flag = threading.Event()
    # jax.distributed has a handler of its own, which reaches all processes: see `_stop_now`.
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or jax.process_count() > 1:
        yield flag
        return

    def handler(signum: int, frame: FrameType | None) -> None:
        flag.set()

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop_now(terminated: threading.Event, step: int) -> bool:
    if jax.process_count() > 1:
        # All processes must stop at the same step, or the others would wait for this one for ever.
        return multihost_utils.reached_preemption_sync_point(step)
    return terminated.is_set()
