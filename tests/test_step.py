"""One step: the same on any number of devices, and never another one unnoticed."""

import dataclasses
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from rmgl_jax.config import AugmentConfig, LossConfig, RandomShiftingConfig
from rmgl_jax.devices import AXIS, data_mesh
from rmgl_jax.models.rmgl import RMGL
from rmgl_jax.training.optimizer import learning_rate, make_optimizer
from rmgl_jax.training.step import create_state, make_train_step, train_step
from tests.tiny import tiny_batch, tiny_config

pytestmark = pytest.mark.network

GOLDEN = Path(__file__).parent / "golden" / "step.json"


def run_steps(config, steps=3):
    """State and metrics after some steps from scratch."""
    step = make_train_step(config, steps_per_epoch=10)
    state = step.replicate(create_state(config.model, make_optimizer(config.optimizer, 10), 0))
    for number in range(steps):
        state, metrics = step.run(state, step.put(tiny_batch(number)), jax.random.key(7))
    return jax.device_get(state), jax.device_get(metrics)


def assert_close(one, other, tolerance=1e-5):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance, err_msg=name)


def largest_difference(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


@pytest.fixture(scope="module")
def by_jit():
    return run_steps(tiny_config())


@pytest.fixture(scope="module")
def on_one_device():
    """The truth that devices must agree with: the whole batch on one, mapped over nothing."""
    return run_on_one_device(tiny_config())


def run_on_one_device(config, **shardings):
    optimizer = make_optimizer(config.optimizer, 10)
    step = jax.jit(
        partial(
            train_step,
            model=RMGL(config.model),
            optimizer=optimizer,
            schedule=learning_rate(config.optimizer, 10),
            augmentation=config.augment,
            loss=config.loss,
        ),
        **shardings,
    )
    state = create_state(config.model, optimizer, 0)
    for number in range(3):
        state, metrics = step(state, tiny_batch(number), jax.random.key(7))
    return jax.device_get(state), jax.device_get(metrics)


@pytest.fixture(scope="module")
def by_pmap():
    return run_steps(tiny_config(parallel="pmap"))


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_four_devices_equal_one(parallel, on_one_device, request):
    assert jax.device_count() == 4
    one, one_metrics = on_one_device
    four, four_metrics = request.getfixturevalue(f"by_{parallel}")
    assert one.step == four.step == 3
    assert_close(one.params, four.params)
    assert_close(one.batch_stats, four.batch_stats)
    assert_close(one_metrics, four_metrics)


def test_jit_equals_pmap(by_jit, by_pmap):
    assert_close(by_jit, by_pmap)


def test_a_batch_left_to_the_partitioner_is_the_same(on_one_device):
    """Nothing in the step depends on how XLA fuses it; the gradient of `jnp.max` once did."""
    rows, everywhere = (NamedSharding(data_mesh(), spec) for spec in (P(AXIS), P()))
    config = tiny_config()
    state, _ = run_on_one_device(config, in_shardings=(everywhere, rows, everywhere))
    assert_close(on_one_device[0].params, state.params)


def test_every_parameter_and_statistic_moves(by_jit):
    start = jax.device_get(
        create_state(tiny_config().model, make_optimizer(tiny_config().optimizer, 10), 0)
    )
    for part in ("params", "batch_stats"):
        before = jax.tree_util.tree_leaves_with_path(getattr(start, part))
        after = jax.tree.leaves(getattr(by_jit[0], part))
        for (path, a), b in zip(before, after, strict=True):
            assert not np.array_equal(a, b), jax.tree_util.keystr(path)


def test_per_device_batch_norm_is_another_computation(by_pmap):
    state, _ = run_steps(tiny_config(parallel="pmap", batch_norm="per_device"))
    assert largest_difference(state.params, by_pmap[0].params) > 2e-5


def test_per_device_mining_is_another_computation(by_pmap):
    # A device has one person here, so that it finds no negative at all.
    config = tiny_config(mining="per_device")
    state, metrics = run_steps(config)
    assert metrics["triplet"] == 0
    assert metrics["triplet_skipped"] == 2  # of each device's two anchors
    assert by_pmap[1]["triplet"] > 0
    assert largest_difference(state.params, by_pmap[0].params) > 2e-5


def test_accumulated_parts_are_the_same_by_jit_and_pmap():
    # 8 persons: two parts on each of four devices hold one person each.
    def run(parallel):
        config = tiny_config(parallel=parallel, accumulate=2, num_ids=8)
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, num_classes=12)
        )
        step = make_train_step(config, steps_per_epoch=10)
        state = create_state(config.model, make_optimizer(config.optimizer, 10), 0)
        one, two = tiny_batch(0), tiny_batch(1)
        batch = {name: np.concatenate([one[name], two[name]]) for name in one}
        batch["labels"][8:] += 6
        state, metrics = step.run(step.replicate(state), step.put(batch), jax.random.key(7))
        return jax.device_get(state), jax.device_get(metrics)

    (one, one_metrics), (other, other_metrics) = run("jit"), run("pmap")
    assert_close(one.params, other.params)
    assert_close(one.batch_stats, other.batch_stats)
    assert_close(one_metrics, other_metrics)


def test_accumulation_averages_the_parts():
    """With what depends on the part switched off, two parts give the whole batch's gradient."""
    config = tiny_config()
    optimizer = make_optimizer(config.optimizer, 10)
    state = create_state(config.model, optimizer, 0)

    class Frozen(RMGL):
        """Batch norm by running statistics, so that images do not see each other."""

        def __call__(self, images, train):
            return super().__call__(images, train=False)

    def run(accumulate):
        return jax.jit(
            lambda state, batch: train_step(
                state,
                batch,
                jax.random.key(0),
                model=Frozen(config.model),
                optimizer=optimizer,
                schedule=lambda step: step,
                augmentation=AugmentConfig(shifting=RandomShiftingConfig()),
                loss=LossConfig(triplet_weight=0),
                accumulate=accumulate,
            )
        )(state, tiny_batch())

    (one, one_metrics), (two, two_metrics) = run(1), run(2)
    assert_close(one.params, two.params, 1e-6)
    assert_close(one_metrics, two_metrics)


def test_two_processes_equal_one(by_jit, tmp_path):
    """Two processes of two devices each, as on a pod: both end with the one-process state."""
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    script = Path(__file__).parent / "two_process_step.py"
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), address, str(number), str(tmp_path)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    expected = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            (by_jit[0].params, by_jit[0].batch_stats, by_jit[1])
        )
    }
    for parallel in ("jit", "pmap"):
        for number in (0, 1):
            found = np.load(tmp_path / f"{parallel}{number}.npz")
            assert set(found) == set(expected)
            for name, leaf in expected.items():
                np.testing.assert_allclose(
                    found[name], leaf, atol=1e-5, rtol=1e-5, err_msg=f"{parallel} {name}"
                )


def test_golden_step():
    """The third step's terms and some norms, as they were when last agreed on."""
    state, metrics = run_on_one_device(tiny_config(granularities=(2, 3)))
    norms = {
        jax.tree_util.keystr(path): float(np.linalg.norm(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)
        if "classifier" in str(path) or "reduction" in str(path) or "stem" in str(path)
    }
    # Counts jump where rounding decides a close call, so only what is continuous is compared.
    counts = ("accuracy", "triplet_active", "triplet_skipped")
    found = {k: float(v) for k, v in metrics.items() if not k.startswith(counts)} | norms
    if os.environ.get("RMGL_WRITE_GOLDEN"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert found.keys() == golden.keys()
    for name, value in golden.items():
        assert found[name] == pytest.approx(value, rel=2e-4, abs=2e-5), (
            f"{name} of the third step is {found[name]}, it was {value}. A change of the model, "
            "the augmentation, the losses or the optimizer shows here. If you did not intend one, "
            "this is a bug. If you did, say so in the commit, and write the new values with "
            "RMGL_WRITE_GOLDEN=1 python -m pytest tests/test_step.py."
        )


def test_refuses_batches_that_devices_cannot_share():
    with pytest.raises(ValueError, match=r"3 .* 2 .* 6 .* 4 devices"):
        make_train_step(tiny_config(num_ids=3), 10)
    with pytest.raises(ValueError, match=r"2 identities .* 4 parts"):
        make_train_step(
            tiny_config(num_ids=2, num_instances=4, parallel="pmap", mining="per_device"), 10
        )
