"""The optimizer against torch's SGD, and the schedule against the paper's words."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rmgl_jax.config import ModelConfig, OptimizerConfig
from rmgl_jax.models.rmgl import RMGL
from rmgl_jax.training.optimizer import learning_rate, make_optimizer, parameter_labels


def test_equals_torch_sgd():
    """40 steps of two groups with decay, warm-up and two drops, to 1e-6."""
    golden = np.load(Path(__file__).parent / "golden" / "sgd_trajectory.npz")
    optimizer = make_optimizer(OptimizerConfig(decay_epochs=(5, 7)), steps_per_epoch=4)
    params = {
        "backbone": {"kernel": jnp.array(golden["kernel0"])},
        "reduction": {},
        "classifier": {"kernel": jnp.array(golden["head0"]), "bias": jnp.array(golden["bias0"])},
    }

    def loss(params):
        hidden = jnp.tanh(golden["inputs"] @ params["backbone"]["kernel"])
        predicted = hidden @ params["classifier"]["kernel"] + params["classifier"]["bias"][None]
        return jnp.mean(jnp.square(predicted - golden["targets"]))

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for i in range(40):
        params, state = step(params, state)
        for name, value in (
            ("kernel", params["backbone"]["kernel"]),
            ("head", params["classifier"]["kernel"]),
            ("bias", params["classifier"]["bias"]),
        ):
            np.testing.assert_allclose(value, golden[name][i], atol=1e-6, err_msg=f"{name} {i}")


def test_schedule_of_the_paper():
    rate = learning_rate(OptimizerConfig(), steps_per_epoch=100)
    assert rate(0) == pytest.approx(1e-5)
    # Exponential: equal ratios in equal times, halfway the geometric mean.
    assert rate(150) == pytest.approx(np.sqrt(1e-5 * 1e-2), rel=1e-5)
    for step, expected in [(300, 1e-2), (2999, 1e-2), (3000, 1e-3), (4999, 1e-3), (5000, 1e-4)]:
        assert rate(step) == pytest.approx(expected, rel=1e-5), step


def test_schedule_without_warmup_or_drops():
    config = OptimizerConfig(warmup_epochs=0, decay_epochs=(), learning_rate=0.5)
    assert learning_rate(config, 10)(0) == 0.5


def test_drops_beyond_the_integers_of_32_bits_never_come():
    schedule = learning_rate(OptimizerConfig(decay_epochs=(1.0, 1e9), warmup_epochs=0), 100)
    assert schedule(99) == pytest.approx(0.01)
    assert jax.jit(schedule)(2**24) == pytest.approx(0.001)


def test_every_parameter_is_labeled_and_the_head_is_the_head():
    config = ModelConfig(
        num_classes=3,
        width=8,
        depth=(1, 1, 1, 1),
        image_size=(96, 32),
        global_classifier="pooled",
    )
    params = jax.eval_shape(
        lambda: RMGL(config).init(jax.random.key(0), jnp.zeros((1, 96, 32, 3)), train=False)
    )["params"]
    labels = parameter_labels(params)
    assert jax.tree.structure(labels) == jax.tree.structure(params)
    for path, label in jax.tree_util.tree_leaves_with_path(labels):
        top = path[0].key
        heads = ("reduction", "classifier", "global_classifier")
        assert label == ("head" if top in heads else "backbone"), path
    assert set(jax.tree.leaves(labels)) == {"head", "backbone"}


def test_frozen_parameters_do_not_change_and_others_do():
    params = {
        "backbone": {name: {"kernel": jnp.ones(2)} for name in ("stem", "local2_res3", "res4")},
        "reduction": {},
        "classifier": {"kernel": jnp.ones(2)},
    }
    gradients = jax.tree.map(jnp.ones_like, params)
    for frozen_until, frozen in (
        ("stem", ["stem"]),
        ("res2", ["stem"]),
        ("res3", ["stem", "local2_res3"]),
        ("res4", ["stem", "local2_res3", "res4"]),
    ):
        optimizer = make_optimizer(OptimizerConfig(frozen_until=frozen_until), 1)
        updates, _ = optimizer.update(gradients, optimizer.init(params), params)
        still = {name for name, leaf in updates["backbone"].items() if not leaf["kernel"].any()}
        assert still == set(frozen)
        assert updates["classifier"]["kernel"].all()


def test_a_renamed_head_is_an_error():
    with pytest.raises(ValueError, match="no module \\['reduction'\\]"):
        parameter_labels({"backbone": {}, "classifier": {}})


def test_decay_can_leave_norms_and_biases_alone():
    params = {
        "backbone": {"conv": {"kernel": jnp.ones(2)}, "norm": {"scale": jnp.ones(2)}},
        "reduction": {"norm": {"bias": jnp.ones(2)}},
        "classifier": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    config = OptimizerConfig(decay_norms_and_biases=False, warmup_epochs=0)
    optimizer = make_optimizer(config, 1)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    moved = {
        "/".join(k.key for k in path): bool(jnp.any(leaf != 0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    assert moved == {
        "backbone/conv/kernel": True,
        "backbone/norm/scale": False,
        "reduction/norm/bias": False,
        "classifier/kernel": True,
        "classifier/bias": False,
    }
