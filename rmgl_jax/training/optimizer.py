"""SGD with warm-up, step decay, coupled weight decay and a faster head (IV-A)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rmgl_jax.config import OptimizerConfig
from rmgl_jax.stages import FrozenPosition, is_frozen

HEAD_MODULES = ("reduction", "classifier")
OPTIONAL_HEAD_MODULES = ("global_classifier",)
"""Top-level modules whose learning rate is `head_multiplier` times the backbone's."""

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def learning_rate(config: OptimizerConfig, steps_per_epoch: int) -> Schedule:
    """Returns the backbone's learning rate as a function of the step, from 0.

    `warmup_from * (learning_rate / warmup_from) ** (step / warmup_steps)` during the warm-up, then
    `learning_rate`, times `decay_factor` from the first step after each of `decay_epochs`.
    """
    warmup_steps = config.warmup_epochs * steps_per_epoch
    # As float, like the step: an epoch long after the end may be beyond the integers of 32 bits.
    boundaries = [float(round(epoch * steps_per_epoch)) for epoch in config.decay_epochs]

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        drops = sum((step >= boundary).astype(jnp.float32) for boundary in boundaries)
        rate = config.learning_rate * jnp.float32(config.decay_factor) ** drops
        if warmup_steps > 0:
            progress = jnp.minimum(step / warmup_steps, 1.0)
            rate *= (config.learning_rate / config.warmup_from) ** (progress - 1.0)
        return rate

    return schedule


def parameter_labels(params: Any, frozen_until: FrozenPosition | None = None) -> Any:
    """Labels every parameter "head", "backbone" or "frozen" by its module.

    Raises:
        ValueError: a head module is missing. Without this check a renamed module would silently
            train at the wrong rate.
    """
    missing = [name for name in HEAD_MODULES if name not in params]
    if missing:
        raise ValueError(
            f"The parameters have no module {missing}; the top level holds {sorted(params)}."
        )

    def label(path: tuple[Any, ...], _: Any) -> str:
        if path[0].key in HEAD_MODULES + OPTIONAL_HEAD_MODULES:
            return "head"
        return "frozen" if is_frozen(path[1].key, frozen_until) else "backbone"

    return jax.tree_util.tree_map_with_path(label, params)


def make_optimizer(config: OptimizerConfig, steps_per_epoch: int) -> optax.GradientTransformation:
    """Makes SGD with momentum, with `head_multiplier` times the learning rate for the head.

    As torch's SGD: `g += weight_decay * p`, `v = momentum * v + g`, `p -= rate * v`. Parameters up
    to `config.frozen_until` do not change.
    """
    rate = learning_rate(config, steps_per_epoch)

    def mask(params: Any) -> Any:
        # Kernels have two or more axes besides a possible leading N; by name it is unambiguous.
        return jax.tree_util.tree_map_with_path(
            lambda path, _: config.decay_norms_and_biases or path[-1].key == "kernel", params
        )

    def sgd(multiplier: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=mask),
            optax.trace(decay=config.momentum),
            optax.scale_by_learning_rate(lambda step: multiplier * rate(step)),
        )

    groups = {"backbone": sgd(1.0), "head": sgd(config.head_multiplier)}
    if config.frozen_until is not None:
        groups["frozen"] = optax.set_to_zero()
    return optax.partition(groups, partial(parameter_labels, frozen_until=config.frozen_until))
