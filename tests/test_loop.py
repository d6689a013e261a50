"""Interrupted runs end with the same bits and a complete log, or say why not."""

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rmgl_jax.config import EvalConfig
from rmgl_jax.evaluation.embedding import embed_batch
from rmgl_jax.evaluation.protocol import evaluate_splits
from rmgl_jax.training import loop
from rmgl_jax.training.checkpoints import CheckpointError, open_checkpoints, restore
from rmgl_jax.training.logger import read_metrics
from rmgl_jax.training.loop import Interrupted, NonFiniteLossError, train_loop
from rmgl_jax.training.run_directory import ConfigChangedError
from rmgl_jax.training.step import ParallelStep, TrainState
from tests.tiny_run import CONFIG, named_leaves, tiny_split
from tests.trees import assert_trees_close

pytestmark = pytest.mark.network

STEPS = 12
"""Of the tiny run: 4 epochs of 3."""


def losses(workdir, kind="train"):
    """Step and loss terms of every record; the speeds are the machine's."""
    names = ("step", "loss", "triplet", "learning_rate")
    return [
        {name: record[name] for name in names}
        for record in read_metrics(workdir)
        if record["kind"] == kind
    ]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Directory of compiled programs, shared by all runs of this file."""
    before = jax.config.jax_compilation_cache_dir
    directory = before or str(tmp_path_factory.mktemp("compiled"))
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield {
        "JAX_COMPILATION_CACHE_DIR": directory,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    jax.config.update("jax_compilation_cache_dir", before)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


@pytest.fixture(scope="module")
def whole(compiled, tmp_path_factory):
    """An uninterrupted run: its state and its log."""
    workdir = tmp_path_factory.mktemp("whole")
    return named_leaves(train_loop(CONFIG, tiny_split(), workdir)), losses(workdir)


# --- Killed and resumed -----------------------------------------------------------------------


def run_process(workdir, event, step, compiled):
    """A run in a process of its own; see `tiny_run`."""
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "tests.tiny_run", str(workdir), event, str(step)],
        env=os.environ | compiled | {"PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def killed(whole, compiled, tmp_path_factory):
    """A run that is killed and resumed several times: its directory and the processes."""
    workdir = tmp_path_factory.mktemp("killed")
    late = random.Random(0).choice([10, 11])
    events = [
        ("kill-commit", 3),  # before there is another
        ("kill", 4),  # while that of step 3 is being written, or just after
        ("kill-delete", 3),
        ("full", 0),
        ("kill", late),
        ("none", 0),
    ]
    return workdir, [(event, run_process(workdir, event, step, compiled)) for event, step in events]


def test_killed_runs_have_the_expected_exit_status(killed):
    for event, process in killed[1]:
        expected = {"none": 0, "full": 1}.get(event, -signal.SIGKILL)
        assert process.returncode == expected, (event, process.stderr)


def test_killed_run_ends_with_the_same_bits(killed, whole):
    with np.load(killed[0] / "state.npz") as found:
        assert_trees_close(dict(found), whole[0])


def test_killed_run_leaves_whole_checkpoints(killed, whole):
    directory = killed[0] / "checkpoints"
    assert {path.name for path in directory.iterdir()} == {"9", "12"}
    with open_checkpoints(directory, keep=2) as manager:
        like = loop.create_state(CONFIG.model, loop.make_optimizer(CONFIG.optimizer, 3), 1)
        restored = restore(manager, like)
    assert (restored.step, restored.skipped) == (STEPS, ())
    assert_trees_close(named_leaves(restored.state), whole[0])


def test_killed_run_logs_every_step_once(killed, whole):
    assert losses(killed[0]) == whole[1]
    assert [record["step"] for record in whole[1]] == list(range(1, STEPS + 1))


def test_full_disk_is_reported_in_one_line(killed):
    process = next(process for event, process in killed[1] if event == "full")
    assert process.stderr == ""
    line = " ".join(process.stdout.split())
    assert line.startswith("Error: ")
    assert f"{killed[0] / 'checkpoints'}" in line
    assert "step 9" in line
    assert "File too large" in line


def test_sigterm_saves_and_the_run_resumes(whole, compiled, tmp_path):
    def terminate(done):
        if done == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        train_loop(CONFIG, tiny_split(), tmp_path, on_step=terminate)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "checkpoints" / "8").is_dir()
    first = []
    state = train_loop(CONFIG, tiny_split(), tmp_path, on_step=first.append)
    assert first[0] == 9
    assert_trees_close(named_leaves(state), whole[0])
    assert losses(tmp_path) == whole[1]


def test_evaluation_changes_no_bit_and_recompiles_nothing(whole, compiled, tmp_path):
    programs, compiled_by = [], []

    def listen(event, seconds, fun_name="", **_):
        if event.endswith("backend_compile_duration"):
            programs.append(fun_name)

    def measure(variables):
        before = len(programs)
        settings = EvalConfig(batch_size=8)
        result = evaluate_splits(CONFIG.model, variables, split, split, settings)
        compiled_by.append(programs[before:])
        return {"mean_ap": result.plain.mean_ap}

    split = tiny_split()
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, evaluate_every=2))
    embed_batch.clear_cache()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        state = train_loop(config, split, tmp_path, evaluate=measure)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert_trees_close(named_leaves(state), whole[0])
    assert losses(tmp_path) == whole[1]
    measured = [record for record in read_metrics(tmp_path) if record["kind"] == "eval"]
    assert [record["step"] for record in measured] == [6, 12]
    assert sum("train_step" in name for name in programs) == 1
    first, second = compiled_by
    assert sum("embed_batch" in name for name in first) == 1
    assert second == []


# --- The loop around a step of one number -----------------------------------------------------


def stub_step(nan_at=None):
    """A step that only counts, and whose loss can be NaN at one step."""

    @jax.jit
    def run(state, batch, key):
        done = state.step + 1
        loss = jnp.where(done == (nan_at or -1), jnp.nan, 1.0 / done)
        state = state.replace(step=done, params=state.params + loss)
        rate = jnp.float32(0.1)
        return state, {
            "loss": loss,
            "cross_entropy": loss,
            "triplet": jnp.float32(0),
            "learning_rate": rate,
        }

    return ParallelStep(run, lambda batch: batch, lambda state: state, 1)


@pytest.fixture
def stub(monkeypatch):
    """Makes `train` run a stub; the argument says when its loss becomes NaN."""

    def state(*_):
        zero = jnp.zeros((), jnp.int32)
        return TrainState(step=zero, params=jnp.zeros(()), batch_stats={}, opt_state={})

    def install(nan_at=None):
        monkeypatch.setattr(loop, "make_train_step", lambda *_: stub_step(nan_at))
        monkeypatch.setattr(loop, "create_state", state)

    install()
    return install


def with_train(**changes):
    return dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, **changes))


def saved(workdir):
    return {int(path.name) for path in (workdir / "checkpoints").iterdir()}


@pytest.mark.parametrize("nan_at", [1, 3, 5, 6, 7, STEPS])
def test_non_finite_loss_stops_the_run(nan_at, stub, tmp_path):
    """Also where the step is one that would be saved: 3, 6 and 12."""
    stub(nan_at)
    last = (nan_at - 1) // 3 * 3
    message = rf"loss of step {nan_at} is nan \(cross_entropy nan, .* triplet 0\)\. "
    message += rf"The last good .* step {last}\." if last else "No checkpoint was saved yet"
    with pytest.raises(NonFiniteLossError, match=message):
        train_loop(CONFIG, tiny_split(), tmp_path)
    assert saved(tmp_path) == {step for step in (last - 3, last) if step > 0}
    assert len(read_metrics(tmp_path)) == nan_at - 1
    stub()  # The cause is mended, and the run goes on from there.
    first = []
    state = train_loop(CONFIG, tiny_split(), tmp_path, on_step=first.append)
    assert first[0] == last + 1
    assert np.isfinite(state.params)


def test_nothing_is_evaluated_before_its_loss_is_known(stub, tmp_path):
    stub(nan_at=6)

    def measure(variables):
        assert np.isfinite(variables["params"])
        return {"mean_ap": 0.5}

    with pytest.raises(NonFiniteLossError):
        train_loop(with_train(evaluate_every=1), tiny_split(), tmp_path, evaluate=measure)


@pytest.mark.parametrize(
    ("every", "expected"), [(0, [12]), (1, [3, 6, 9, 12]), (2, [6, 12]), (3, [9, 12])]
)
def test_evaluate_every_decides_the_epochs(every, expected, stub, tmp_path):
    train_loop(
        with_train(evaluate_every=every),
        tiny_split(),
        tmp_path,
        evaluate=lambda variables: {"mean_ap": 0.5},
    )
    records = [record for record in read_metrics(tmp_path) if record["kind"] == "eval"]
    assert [record["step"] for record in records] == expected


def test_latest_and_best_are_kept(stub, tmp_path):
    scores = iter([0.2, 0.9, 0.3, 0.4, 0.5, 0.6])
    train_loop(
        with_train(epochs=6, evaluate_every=1),
        tiny_split(),
        tmp_path,
        evaluate=lambda variables: {"mean_ap": next(scores)},
    )
    assert saved(tmp_path) == {6, 15, 18}


def test_checkpoints_every_other_epoch(stub, tmp_path):
    train_loop(with_train(epochs=5, checkpoint_every=2, keep_checkpoints=9), tiny_split(), tmp_path)
    assert saved(tmp_path) == {6, 12, 15}


def test_finished_run_does_nothing(stub, tmp_path):
    def never(*_):
        raise AssertionError

    state = train_loop(CONFIG, tiny_split(), tmp_path)
    before = read_metrics(tmp_path)
    again = train_loop(
        CONFIG, tiny_split(), tmp_path, initialize=never, evaluate=never, on_step=never
    )
    assert again.params == state.params
    assert read_metrics(tmp_path) == before


def test_initialize_gives_the_first_state(stub, tmp_path):
    plain = train_loop(CONFIG, tiny_split(), tmp_path / "plain")
    state = train_loop(
        CONFIG,
        tiny_split(),
        tmp_path / "from100",
        initialize=lambda variables: variables | {"params": variables["params"] + 100},
    )
    assert state.params == pytest.approx(plain.params + 100)


def test_damaged_checkpoint_is_skipped_and_its_steps_run_again(stub, tmp_path, capsys):
    state = train_loop(CONFIG, tiny_split(), tmp_path)
    expected = losses(tmp_path)
    for path in (tmp_path / "checkpoints" / "12").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    first = []
    again = train_loop(CONFIG, tiny_split(), tmp_path, on_step=first.append, console=Console())
    assert first == [10, 11, 12]
    assert again.params == state.params
    assert losses(tmp_path) == expected
    said = " ".join(capsys.readouterr().out.split())
    assert re.search(r"checkpoint of step 12 .* damaged .* step 9 of 12", said)
    assert saved(tmp_path) == {9, 12}
    # That of step 12 is a good one now.
    assert train_loop(CONFIG, tiny_split(), tmp_path, on_step=pytest.fail).params == state.params


def test_run_with_damaged_checkpoints_only_stops(stub, tmp_path):
    train_loop(CONFIG, tiny_split(), tmp_path)
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"those of steps \[9, 12\] are damaged"):
        train_loop(CONFIG, tiny_split(), tmp_path)
    assert saved(tmp_path) == {9, 12}


def test_another_configuration_is_refused(stub, tmp_path):
    train_loop(CONFIG, tiny_split(), tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ConfigChangedError, match=r"train\.seed was 0, is now 7"):
        train_loop(with_train(seed=7), tiny_split(), tmp_path)
    assert (tmp_path / "config.json").read_text() == before
    assert json.loads(before)["train"]["seed"] == 0


def test_a_split_that_does_not_fit_the_model_is_refused(tmp_path):
    split = tiny_split()
    model = dataclasses.replace(CONFIG.model, num_classes=5)
    with pytest.raises(ValueError, match=r"num_classes=5, but tiny train has 6 identities"):
        train_loop(dataclasses.replace(CONFIG, model=model), split, tmp_path)
    small = dataclasses.replace(split, images=split.images[:, ::2])
    with pytest.raises(ValueError, match=r"are \(48, 32\), .* image_size=\(96, 32\)"):
        train_loop(CONFIG, small, tmp_path)
    with pytest.raises(ValueError, match=r"7 identities .* 6"):
        train_loop(with_train(num_ids=7), split, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_batches_of_a_resumed_run_are_those_of_the_whole(monkeypatch):
    batches = list(loop._batches(CONFIG, tiny_split(), 0, STEPS, 3))
    later = list(loop._batches(CONFIG, tiny_split(), 7, STEPS, 3))
    assert len(batches) == STEPS
    for one, other in zip(batches[7:], later, strict=True):
        np.testing.assert_array_equal(one["images"], other["images"])
        np.testing.assert_array_equal(one["labels"], other["labels"])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for number in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        for mine, all_of_it in zip(
            loop._batches(CONFIG, tiny_split(), 0, STEPS, 3), batches, strict=True
        ):
            part = slice(4 * number, 4 * number + 4)
            np.testing.assert_array_equal(mine["labels"], all_of_it["labels"][part])
            np.testing.assert_array_equal(mine["images"], all_of_it["images"][part])
