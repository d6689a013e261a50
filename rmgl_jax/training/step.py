"""The training step: one pure function, and two ways to map it over devices."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from data_prep.errors import InputError
from rmgl_jax.config import AugmentConfig, ExperimentConfig, LossConfig, ModelConfig
from rmgl_jax.cpu import options_for_one_call
from rmgl_jax.data.augment import augment
from rmgl_jax.devices import AXIS, data_mesh
from rmgl_jax.models.rmgl import RMGL, feature_layout
from rmgl_jax.training.losses import total_loss
from rmgl_jax.training.optimizer import learning_rate, make_optimizer

Batch = Mapping[str, jax.typing.ArrayLike]
"""`images`: uint8 `[B, H, W, 3]`; `labels`: int32 `[B]`. Rows are grouped by person."""
Metrics = dict[str, jax.Array]
Step = Callable[["TrainState", Batch, jax.Array], tuple["TrainState", Metrics]]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes and a checkpoint holds."""

    step: jax.Array
    """Number of steps done, int32 scalar."""
    params: Any
    batch_stats: Any
    opt_state: Any


def create_state(
    model: ModelConfig, optimizer: optax.GradientTransformation, seed: int
) -> TrainState:
    """Initializes a state; the same seed gives the same state."""
    create = partial(_initialize, model, optimizer)
    return jax.jit(create, compiler_options=options_for_one_call())(jax.random.key(seed))


def state_shapes(model: ModelConfig, optimizer: optax.GradientTransformation) -> TrainState:
    """Returns the shapes and dtypes of a state, without computing one."""
    return jax.eval_shape(partial(_initialize, model, optimizer), jax.random.key(0))


def _initialize(
    model: ModelConfig, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    images = jnp.zeros((1, *model.image_size, 3), jnp.float32)
    variables = RMGL(model).init(key, images, train=False)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
    )


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    model: RMGL,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    augmentation: AugmentConfig,
    loss: LossConfig,
    accumulate: int = 1,
    axis_name: str | None = None,
    mining_axis: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Computes one step of SGD on one batch, from uint8 images to new parameters. Pure.

    Every random number comes from `fold_in(key, state.step)` and the image's place in the global
    batch, so a run needs no random state saved and does not depend on the number of devices.

    Args:
        state: see `TrainState`.
        batch: see `Batch`; this device's part if `axis_name` is given.
        key: random key of the whole run.
        model: the network; batch statistics are synchronized over its `axis_name`.
        optimizer: see `make_optimizer`.
        schedule: learning rate, for the metrics.
        augmentation: augmentation of the images.
        loss: terms of Eq. 4.
        accumulate: number of parts that the batch is cut into, one after another. Each part is
            normalized and mined on its own, and the gradient is their mean.
        axis_name: mapped axis over which gradients and metrics are averaged.
        mining_axis: mapped axis over which triplets are mined.

    Returns:
        The next state and scalar metrics (see `total_loss`, and `learning_rate`).
    """
    images, labels = jnp.asarray(batch["images"]), jnp.asarray(batch["labels"])
    size = images.shape[0]
    first = 0 if axis_name is None else lax.axis_index(axis_name) * size
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.fold_in(key, state.step)))(
        first + jnp.arange(size)
    )
    layout = feature_layout(model.config)
    parts = accumulate if axis_name is None else accumulate * lax.psum(1, axis_name)

    def objective(
        params: Any, batch_stats: Any, images: jax.Array, labels: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        output, updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            augment(keys, images, augmentation),
            train=True,
            mutable=["batch_stats"],
        )
        value, metrics = total_loss(
            output.features, output.logits, labels, layout, loss, mining_axis, parts
        )
        return value, (updated["batch_stats"], metrics)

    gradient = jax.grad(objective, has_aux=True)
    if accumulate == 1:
        grads, (batch_stats, metrics) = gradient(
            state.params, state.batch_stats, images, labels, keys
        )
    else:

        def cut(array: jax.Array) -> jax.Array:
            return array.reshape(accumulate, -1, *array.shape[1:])

        def part(carry: tuple[Any, Any], inputs: tuple[jax.Array, ...]) -> tuple[Any, Metrics]:
            batch_stats, total = carry
            grads, (batch_stats, metrics) = gradient(state.params, batch_stats, *inputs)
            return (batch_stats, jax.tree.map(jnp.add, total, grads)), metrics

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        (batch_stats, total), each = lax.scan(
            part, (state.batch_stats, zeros), (cut(images), cut(labels), cut(keys))
        )
        grads = jax.tree.map(lambda leaf: leaf / accumulate, total)
        metrics = jax.tree.map(lambda leaf: leaf.mean(axis=0), each)

    if axis_name is not None:
        grads = lax.pmean(grads, axis_name)
        # Synchronized statistics are equal on all devices already. Others are averaged, so that
        # all devices keep one state.
        batch_stats = lax.pmean(batch_stats, axis_name)
        metrics = lax.pmean(metrics, axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics["learning_rate"] = schedule(state.step)
    next_state = TrainState(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )
    return next_state, metrics


class ParallelStep(NamedTuple):
    """The step, and the functions that make its arguments."""

    create: Callable[[], TrainState]
    """Creates the initial state."""
    run: Any
    """Computes `run(state, batch, key)` and donates the state."""
    put: Callable[[Mapping[str, np.ndarray]], Batch]
    """Converts this process's rows to the argument `batch` of `run`."""
    replicate: Callable[[TrainState], TrainState]
    """Puts a state that every process holds on all devices."""
    flops_shards: int
    """Number of devices; the lowered `run` counts the operations of one."""


def make_train_step(
    config: ExperimentConfig, steps_per_epoch: int, mesh: Mesh | None = None
) -> ParallelStep:
    """Makes the step of `config` on all devices of all processes, by `config.train.parallel`.

    Args:
        config: the experiment.
        steps_per_epoch: number of steps of an epoch, for the learning rate.
        mesh: other devices, with the axis `AXIS`. They need not exist: `run` can be lowered and
            compiled for those of a topology.

    Raises:
        InputError: the batch cannot be spread over the devices as `config.train` requires.
    """
    train = config.train
    mesh = data_mesh() if mesh is None else mesh
    devices = mesh.size
    _check_division(config, devices, len({device.process_index for device in mesh.devices.flat}))
    optimizer = make_optimizer(config.optimizer, steps_per_epoch)
    step = partial(
        train_step,
        model=RMGL(
            config.model,
            axis_name=AXIS if train.batch_norm == "synchronized" else None,
            frozen_until=config.optimizer.frozen_until,
        ),
        optimizer=optimizer,
        schedule=learning_rate(config.optimizer, steps_per_epoch),
        augmentation=config.augment,
        loss=config.loss,
        accumulate=train.accumulate,
        axis_name=AXIS,
        mining_axis=AXIS if train.mining == "global" else None,
    )
    replicated, rows = (NamedSharding(mesh, spec) for spec in (P(), P(AXIS)))
    # Copied on the devices: the state is donated to the step, and device arrays that are made from
    # host memory may share it, on the CPU even with each other.
    copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state), out_shardings=replicated)

    def replicate(state: TrainState) -> TrainState:
        return copy(jax.device_get(state))

    def spread(part: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(rows, part)

    if train.parallel == "pmap":
        local = jax.local_device_count()
        run = jax.pmap(
            step,
            AXIS,
            in_axes=(None, 0, None),
            out_axes=(None, None),
            devices=list(mesh.devices.flat),
            donate_argnums=(0,),
        )

        def put(batch: Mapping[str, np.ndarray]) -> Batch:
            return {
                name: spread(part.reshape(local, -1, *part.shape[1:]))
                for name, part in batch.items()
            }

    else:
        # The mapping is written out rather than left to XLA's partitioner: docs/decisions.md.
        mapped = jax.shard_map(
            step, mesh=mesh, in_specs=(P(), P(AXIS), P()), out_specs=(P(), P()), check_vma=False
        )
        run = jax.jit(mapped, donate_argnums=(0,))

        def put(batch: Mapping[str, np.ndarray]) -> Batch:
            return {name: spread(part) for name, part in batch.items()}

    create = partial(create_state, config.model, optimizer, train.seed)
    return ParallelStep(create, run, put, replicate, devices)


def _check_division(config: ExperimentConfig, devices: int, processes: int) -> None:
    train = config.train
    size = train.num_ids * train.num_instances
    if size % (devices * train.accumulate):
        raise InputError(
            f"A batch of {train.num_ids} identities x {train.num_instances} images = {size} rows "
            f"cannot be spread over {devices} devices x {train.accumulate} accumulated parts."
        )
    if train.num_ids % processes:
        raise InputError(
            f"{train.num_ids} identities cannot be divided among {processes} processes."
        )
    whole = devices * train.accumulate
    if train.num_ids % whole and (train.mining == "per_device" or train.accumulate > 1):
        raise InputError(
            f"{train.num_ids} identities cannot be cut into {whole} parts of whole identities, "
            "which mining within a part requires."
        )
    normalized = size // (whole if train.batch_norm == "per_device" else train.accumulate)
    if normalized < 2:
        raise InputError(
            f"Batch norm requires 2 or more images, and a part of the batch has {normalized}: the "
            "normalized features of a single image are constant. Use larger batches or fewer "
            "parts, or synchronize batch norm."
        )
    if config.loss.triplet_weight:
        mined = train.num_ids // (whole if train.mining == "per_device" else train.accumulate)
        if mined < 2 or train.num_instances < 2:
            raise InputError(
                "The triplet loss compares images of 2 or more identities with 2 or more images "
                f"each, and a part of the batch has {mined} identities with {train.num_instances}. "
                "Use larger batches or fewer parts, or set loss.triplet_weight to 0."
            )
