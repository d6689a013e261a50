"""Whatever befalls a run, it ends with the same bits and a whole logger, or says why not."""

import dataclasses
import json
import os
import random
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
from rmgl_jax.training.loop import Interrupted, NonFiniteLossError, train
from rmgl_jax.training.run_directory import ConfigChangedError
from rmgl_jax.training.step import ParallelStep, TrainState
from tests.tiny_run import CONFIG, named_leaves, tiny_split

STEPS = 12
"""Of the tiny run: 4 epochs of 3."""


def assert_same_bits(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].tobytes() == expected[name].tobytes(), name


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
    """Where compiled programs are kept, so that all runs of this file share them."""
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
    """A run that nothing befalls: its state and its logger."""
    workdir = tmp_path_factory.mktemp("whole")
    return named_leaves(train(CONFIG, tiny_split(), workdir)), losses(workdir)


# --- Killed and resumed -----------------------------------------------------------------------


def befall(workdir, event, step, compiled):
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
    """A run that is killed, and goes on, again and again: its directory, and what each one said."""
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
    return workdir, [(event, befall(workdir, event, step, compiled)) for event, step in events]


def test_what_befell_it(killed):
    for event, process in killed[1]:
        expected = {"none": 0, "full": 1}.get(event, -signal.SIGKILL)
        assert process.returncode == expected, (event, process.stderr)


def test_a_killed_run_ends_with_the_same_bits(killed, whole):
    with np.load(killed[0] / "state.npz") as found:
        assert_same_bits(dict(found), whole[0])


def test_its_checkpoints_are_whole(killed, whole):
    directory = killed[0] / "checkpoints"
    assert {path.name for path in directory.iterdir()} == {"9", "12"}
    with open_checkpoints(directory, keep=2) as manager:
        like = loop.create_state(CONFIG.model, loop.make_optimizer(CONFIG.optimizer, 3), 1)
        restored = restore(manager, like)
    assert (restored.step, restored.skipped) == (STEPS, ())
    assert_same_bits(named_leaves(restored.state), whole[0])


def test_its_journal_has_every_step_once(killed, whole):
    assert losses(killed[0]) == whole[1]
    assert [record["step"] for record in whole[1]] == list(range(1, STEPS + 1))


def test_a_full_disk_is_one_sentence(killed):
    process = next(process for event, process in killed[1] if event == "full")
    assert process.stderr == ""
    line = " ".join(process.stdout.split())
    assert line.startswith("Error: CheckpointError: A checkpoint could not be written to ")
    assert "MB are free. The last good one is of step 9. The cause: " in line
    assert line.endswith("File too large [os_error_code='27']")


def test_sigterm_saves_and_the_run_goes_on(whole, compiled, tmp_path):
    def terminate(done):
        if done == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        train(CONFIG, tiny_split(), tmp_path, on_step=terminate)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "checkpoints" / "8").is_dir()
    first = []
    state = train(CONFIG, tiny_split(), tmp_path, on_step=first.append)
    assert first[0] == 9
    assert_same_bits(named_leaves(state), whole[0])
    assert losses(tmp_path) == whole[1]


def test_evaluation_changes_nothing_and_nothing_is_compiled_twice(whole, compiled, tmp_path):
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
        state = train(config, split, tmp_path, evaluate=measure)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert_same_bits(named_leaves(state), whole[0])
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
def test_a_loss_that_is_not_finite_stops_the_run(nan_at, stub, tmp_path):
    """Also where the step is one that would be saved: 3, 6 and 12."""
    stub(nan_at)
    last = (nan_at - 1) // 3 * 3
    message = rf"loss of step {nan_at} is nan \(cross_entropy nan, .* triplet 0\)\. "
    message += rf"The last good .* step {last}\." if last else "No checkpoint was saved yet"
    with pytest.raises(NonFiniteLossError, match=message):
        train(CONFIG, tiny_split(), tmp_path)
    assert saved(tmp_path) == {step for step in (last - 3, last) if step > 0}
    assert len(read_metrics(tmp_path)) == nan_at - 1
    stub()  # The cause is mended, and the run goes on from there.
    first = []
    state = train(CONFIG, tiny_split(), tmp_path, on_step=first.append)
    assert first[0] == last + 1
    assert np.isfinite(state.params)


def test_nothing_is_evaluated_before_its_loss_is_known(stub, tmp_path):
    stub(nan_at=6)

    def measure(variables):
        assert np.isfinite(variables["params"])
        return {"mean_ap": 0.5}

    with pytest.raises(NonFiniteLossError):
        train(with_train(evaluate_every=1), tiny_split(), tmp_path, evaluate=measure)


@pytest.mark.parametrize(
    ("every", "expected"), [(0, [12]), (1, [3, 6, 9, 12]), (2, [6, 12]), (3, [9, 12])]
)
def test_when_it_is_evaluated(every, expected, stub, tmp_path):
    train(
        with_train(evaluate_every=every),
        tiny_split(),
        tmp_path,
        evaluate=lambda variables: {"mean_ap": 0.5},
    )
    records = [record for record in read_metrics(tmp_path) if record["kind"] == "eval"]
    assert [record["step"] for record in records] == expected


def test_latest_and_best_are_kept(stub, tmp_path):
    scores = iter([0.2, 0.9, 0.3, 0.4, 0.5, 0.6])
    train(
        with_train(epochs=6, evaluate_every=1),
        tiny_split(),
        tmp_path,
        evaluate=lambda variables: {"mean_ap": next(scores)},
    )
    assert saved(tmp_path) == {6, 15, 18}


def test_checkpoints_every_other_epoch(stub, tmp_path):
    train(with_train(epochs=5, checkpoint_every=2, keep_checkpoints=9), tiny_split(), tmp_path)
    assert saved(tmp_path) == {6, 12, 15}


def test_a_run_at_its_end_does_nothing(stub, tmp_path):
    def never(*_):
        raise AssertionError

    state = train(CONFIG, tiny_split(), tmp_path)
    before = read_metrics(tmp_path)
    again = train(CONFIG, tiny_split(), tmp_path, initialize=never, evaluate=never, on_step=never)
    assert again.params == state.params
    assert read_metrics(tmp_path) == before


def test_initialize_is_where_training_starts_from(stub, tmp_path):
    plain = train(CONFIG, tiny_split(), tmp_path / "plain")
    state = train(
        CONFIG,
        tiny_split(),
        tmp_path / "from100",
        initialize=lambda variables: variables | {"params": variables["params"] + 100},
    )
    assert state.params == pytest.approx(plain.params + 100)


def test_a_damaged_checkpoint_is_passed_over_and_its_step_run_again(stub, tmp_path, capsys):
    state = train(CONFIG, tiny_split(), tmp_path)
    expected = losses(tmp_path)
    for path in (tmp_path / "checkpoints" / "12").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    first = []
    again = train(CONFIG, tiny_split(), tmp_path, on_step=first.append, console=Console())
    assert first == [10, 11, 12]
    assert again.params == state.params
    assert losses(tmp_path) == expected
    said = " ".join(capsys.readouterr().out.split())
    assert "The checkpoint of step 12 was damaged and is removed. Going on from step 9 of 12." in (
        said
    )
    assert saved(tmp_path) == {9, 12}
    # That of step 12 is a good one now.
    assert train(CONFIG, tiny_split(), tmp_path, on_step=pytest.fail).params == state.params


def test_all_damaged_stops_it(stub, tmp_path):
    train(CONFIG, tiny_split(), tmp_path)
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"those of steps \[9, 12\] are damaged"):
        train(CONFIG, tiny_split(), tmp_path)
    assert saved(tmp_path) == {9, 12}


def test_another_configuration_is_refused(stub, tmp_path):
    train(CONFIG, tiny_split(), tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ConfigChangedError, match=r"train\.seed was 0, is now 7"):
        train(with_train(seed=7), tiny_split(), tmp_path)
    assert (tmp_path / "config.json").read_text() == before
    assert json.loads(before)["train"]["seed"] == 0


def test_a_split_that_does_not_fit_the_model_is_refused(tmp_path):
    split = tiny_split()
    model = dataclasses.replace(CONFIG.model, num_classes=5)
    with pytest.raises(ValueError, match=r"num_classes=5, but tiny train has 6 identities"):
        train(dataclasses.replace(CONFIG, model=model), split, tmp_path)
    small = dataclasses.replace(split, images=split.images[:, ::2])
    with pytest.raises(ValueError, match=r"are \(48, 32\), .* image_size=\(96, 32\)"):
        train(CONFIG, small, tmp_path)
    with pytest.raises(ValueError, match=r"7 persons needs at least .* hold 6"):
        train(with_train(num_ids=7), split, tmp_path)
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
