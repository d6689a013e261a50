"""One step gives the same result on any number of devices, and a golden one."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from data_prep.errors import InputError
from rmgl_jax.config import AugmentConfig, RandomShiftingConfig
from rmgl_jax.devices import AXIS, data_mesh
from rmgl_jax.models.rmgl import RMGL
from rmgl_jax.training.optimizer import learning_rate, make_optimizer
from rmgl_jax.training.step import create_state, make_train_step, train_step
from tests.compilation import xla_flags
from tests.tiny import KEY, small_config, tiny_batch, tiny_config
from tests.trees import assert_trees_close

pytestmark = pytest.mark.network

GOLDEN = Path(__file__).parent / "golden" / "step.json"
assert_close = partial(assert_trees_close, rtol=1e-5, atol=1e-5)


def first_state(config):
    return jax.device_get(create_state(config.model, make_optimizer(config.optimizer, 10), 0))


@pytest.fixture(scope="module")
def start():
    return first_state(small_config())


def run_steps(config, start, steps=3):
    """State and metrics after each of some steps on all devices."""
    step = make_train_step(config, steps_per_epoch=10)
    state, found = step.replicate(start), []
    for number in range(steps):
        state, metrics = step.run(state, step.put(tiny_batch(number)), jax.random.key(KEY))
        found.append(jax.device_get((state, metrics)))
    return found


def one_device_step(config, **shardings):
    """The step on the whole batch, mapped over nothing."""
    step = partial(
        train_step,
        model=RMGL(config.model),
        optimizer=make_optimizer(config.optimizer, 10),
        schedule=learning_rate(config.optimizer, 10),
        augmentation=config.augment,
        loss=config.loss,
    )
    return jax.jit(step, **shardings)


def run_on_one_device(config, state, key=KEY, **shardings):
    step = one_device_step(config, **shardings)
    for number in range(3):
        state, metrics = step(state, tiny_batch(number), jax.random.key(key))
    return jax.device_get((state, metrics))


@pytest.fixture(scope="module")
def on_one_device(start):
    """The truth that several devices must agree with."""
    return run_on_one_device(small_config(), start)


@pytest.fixture(scope="module")
def by_jit(start):
    return run_steps(small_config(), start)


@pytest.fixture(scope="module")
def by_pmap(start):
    return run_steps(small_config(parallel="pmap"), start)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_step_on_four_devices_equals_one(parallel, on_one_device, request):
    assert jax.device_count() == 4
    state, metrics = request.getfixturevalue(f"by_{parallel}")[-1]
    expected, expected_metrics = on_one_device
    assert state.step == 3
    assert_close(state.params, expected.params)
    assert_close(state.batch_stats, expected.batch_stats)
    assert_close(metrics, expected_metrics)


def test_step_by_jit_equals_pmap(by_jit, by_pmap):
    assert_close(by_jit, by_pmap)


def test_step_of_the_partitioner_is_the_same(on_one_device, start):
    """Nothing in the step depends on how XLA fuses it; the gradient of `jnp.max` once did."""
    rows, everywhere = (NamedSharding(data_mesh(), spec) for spec in (P(AXIS), P()))
    shardings = {"in_shardings": (everywhere, rows, everywhere)}
    assert_close(run_on_one_device(small_config(), start, **shardings), on_one_device)


def test_step_moves_every_parameter_and_statistic(by_jit, start):
    end, _ = by_jit[-1]
    for part in ("params", "batch_stats"):
        before = jax.tree_util.tree_leaves_with_path(getattr(start, part))
        for (path, a), b in zip(before, jax.tree.leaves(getattr(end, part)), strict=True):
            assert not np.array_equal(a, b), jax.tree_util.keystr(path)


def test_step_keeps_what_is_frozen_and_moves_the_rest(start):
    config = small_config()
    config = replace(config, optimizer=replace(config.optimizer, frozen_until="res3"))
    end, _ = run_steps(config, first_state(config), steps=2)[-1]
    for part in ("params", "batch_stats"):
        before = jax.tree_util.tree_leaves_with_path(getattr(start, part))
        for (path, a), b in zip(before, jax.tree.leaves(getattr(end, part)), strict=True):
            kept = path[1].key in ("stem", "res2", "local2_res3")
            assert np.array_equal(a, b) == kept, jax.tree_util.keystr(path)


def config_of_parts(parts, **train):
    """Batches of 8 identities without random numbers, and a triplet loss summed over anchors.

    Returns it, and the configuration of a plain step on one of some parts: the mean of their steps
    is that of the whole batch, whose sum is `parts` times the mean of theirs.
    """
    plain = AugmentConfig(flip_probability=0.0, shifting=RandomShiftingConfig())
    config = replace(small_config(num_ids=8, **train), augment=plain)
    config = replace(config, model=replace(config.model, num_classes=12))
    whole, part = (
        replace(config.loss, triplet_reduction="sum", triplet_weight=w) for w in (0.1, 0.1 * parts)
    )
    return replace(config, loss=whole), replace(config, loss=part)


def batch_of_8():
    one, two = tiny_batch(0), tiny_batch(1)
    return {
        "images": np.concatenate([one["images"], two["images"]]),
        "labels": np.concatenate([one["labels"], two["labels"] + 6]),
    }


def without_terms(metrics):
    """Leaves out the terms that have no weight, and the count, which is a sum."""
    left_out = ("triplet/", "triplet_skipped")
    return {name: value for name, value in metrics.items() if not name.startswith(left_out)}


def test_step_per_device_normalizes_and_mines_parts():
    """On four devices, against a plain step for the rows of each."""
    settings = {"parallel": "pmap", "batch_norm": "per_device", "mining": "per_device"}
    config, of_part = config_of_parts(4, **settings)
    start, batch = first_state(config), batch_of_8()
    step = make_train_step(config, steps_per_epoch=10)
    state, metrics = jax.device_get(
        step.run(step.replicate(start), step.put(batch), jax.random.key(KEY))
    )

    plain_step, parts = one_device_step(of_part), []
    for rows in np.arange(16).reshape(4, 4):
        part = {name: array[rows] for name, array in batch.items()}
        parts.append(plain_step(start, part, jax.random.key(KEY)))
    # The first update of SGD is linear in the gradient, and so are the parameters after it.
    expected, expected_metrics = jax.tree.map(lambda *leaves: sum(leaves) / 4, *parts)
    assert_close(state.params, expected.params)
    assert_close(state.batch_stats, expected.batch_stats)
    assert_close(without_terms(metrics), without_terms(expected_metrics))
    assert metrics["triplet_skipped"] == 0


def test_accumulated_step_is_the_mean_of_its_parts():
    """Two parts on each of four devices, against a plain step for each part."""
    config, of_part = config_of_parts(2, accumulate=2)
    start, batch = first_state(config), batch_of_8()
    step = make_train_step(config, steps_per_epoch=10)
    state, metrics = jax.device_get(
        step.run(step.replicate(start), step.put(batch), jax.random.key(KEY))
    )

    # A device has four rows: two of its first part, then two of its second one.
    plain_step, statistics, parts = one_device_step(of_part), start.batch_stats, []
    for half in ([0, 1], [2, 3]):
        rows = (np.arange(0, 16, 4)[:, None] + half).ravel()
        part = {name: array[rows] for name, array in batch.items()}
        parts.append(plain_step(start.replace(batch_stats=statistics), part, jax.random.key(KEY)))
        statistics = parts[-1][0].batch_stats
    # The first update of SGD is linear in the gradient, and so are the parameters after it.
    expected, expected_metrics = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    assert_close(state.params, expected.params)
    assert_close(state.batch_stats, statistics)
    assert_close(without_terms(metrics), without_terms(expected_metrics))


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Directory of what two processes of two devices each, as on a pod, have written."""
    directory = tmp_path_factory.mktemp("two_processes")
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    environment = os.environ | {
        "XLA_FLAGS": xla_flags(devices=2),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.two_process_step", address, str(number), str(directory)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (0, 1)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return directory


def test_step_on_two_processes_equals_one(by_jit, two_processes):
    state, metrics = by_jit[-1]
    expected = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            (state.params, state.batch_stats, metrics)
        )
    }
    for name in ("jit0", "jit1", "pmap0", "pmap1"):
        with np.load(two_processes / f"{name}.npz") as found:
            assert_close(dict(found), expected)


@pytest.mark.parametrize(
    ("situation", "outcomes"),
    [
        ("same", (None, None)),
        (
            "other seed",
            (("PeerError", "process 1"), ("ConfigChangedError", "train.seed was 0, is now 1")),
        ),
        ("not shared", (("PeerError", "process 1"), ("MissingFileError", "own1"))),
        ("not writable", (("WriteError", "file/run"), ("PeerError", "process 0"))),
    ],
)
def test_init_run_directory_on_two_processes_ends_alike(situation, outcomes, two_processes):
    """Both processes raise, instead of waiting for each other for ever."""
    for number, expected in enumerate(outcomes):
        found = json.loads((two_processes / f"outcomes{number}.json").read_text())[situation]
        if expected is None:
            assert found is None
        else:
            assert found[0] == expected[0]
            assert expected[1] in found[1]


def test_step_is_the_golden_one():
    """The third step's terms and some norms, as they were when last agreed on."""
    config = tiny_config(granularities=(2, 3))
    state, metrics = run_on_one_device(config, first_state(config), key=7)
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


def test_make_train_step_refuses_batches_that_devices_cannot_share():
    with pytest.raises(InputError, match=r"3 .* 2 .* 6 rows .* 4 devices"):
        make_train_step(tiny_config(num_ids=3), 10)
    with pytest.raises(InputError, match=r"2 identities .* 4 parts"):
        make_train_step(tiny_config(num_ids=2, num_instances=4, mining="per_device"), 10)


@pytest.mark.parametrize(
    ("train", "weight", "is_refused"),
    [
        (dict(num_ids=4, num_instances=4), 1, False),
        (dict(num_ids=4, num_instances=4, mining="per_device"), 1, True),
        (dict(num_ids=4, num_instances=4, mining="per_device"), 0, False),
        (dict(num_ids=8, mining="per_device"), 1, False),
        (dict(num_ids=8, accumulate=2), 1, False),
        (dict(num_ids=8, accumulate=2, mining="per_device"), 1, True),
        (dict(num_ids=8, num_instances=1), 1, True),
        (dict(num_ids=8, num_instances=1), 0, False),
    ],
)
def test_make_train_step_refuses_batches_without_triplets(train, weight, is_refused):
    """On four devices. The loss would be zero without a word."""
    config = tiny_config(**train)
    config = replace(config, loss=replace(config.loss, triplet_weight=weight))
    if is_refused:
        with pytest.raises(InputError, match="identities"):
            make_train_step(config, 10)
    else:
        make_train_step(config, 10)


@pytest.mark.parametrize(
    ("train", "is_refused"),
    [
        (dict(num_ids=2, num_instances=2, batch_norm="per_device"), True),
        (dict(num_ids=4, num_instances=2, batch_norm="per_device"), False),
        (dict(num_ids=2, num_instances=2), False),
        (dict(num_ids=8, num_instances=1, accumulate=2, batch_norm="per_device"), True),
        (dict(num_ids=8, num_instances=1, accumulate=2), False),
    ],
)
def test_make_train_step_refuses_batch_norm_over_one_image(train, is_refused):
    """On four devices. The backbone would get no gradient."""
    config = tiny_config(**train)
    config = replace(config, loss=replace(config.loss, triplet_weight=0))
    if is_refused:
        with pytest.raises(InputError, match=r"Batch norm .* 2 or more images, .* has 1"):
            make_train_step(config, 10)
    else:
        make_train_step(config, 10)
