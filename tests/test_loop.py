"""Interrupted runs end with the same bits and a complete log, or say why not."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from data_prep.errors import InputError
from rmgl_jax.config import EvalConfig
from rmgl_jax.evaluation.embedding import embed_batch
from rmgl_jax.evaluation.protocol import evaluate_splits
from rmgl_jax.training.checkpoints import (
    CheckpointError,
    NonFiniteStateError,
    open_checkpoints,
    restore,
)
from rmgl_jax.training.logger import read_metrics
from rmgl_jax.training.loop import NonFiniteLossError, train_loop, training_batches
from rmgl_jax.training.run_directory import ConfigChangedError
from rmgl_jax.training.scores import SCORES_NAME, list_steps, read_scores
from rmgl_jax.training.step import ParallelStep, TrainState
from rmgl_jax.training.stop_signals import Interrupted
from tests.tiny_run import CONFIG, tiny_split
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


def with_train(**changes):
    return replace(CONFIG, train=replace(CONFIG.train, **changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run: its state and its log."""
    workdir = tmp_path_factory.mktemp("whole")
    return jax.device_get(train_loop(CONFIG, tiny_split(), workdir)), losses(workdir)


# --- Killed and resumed -----------------------------------------------------------------------


def run_process(workdir, event, step):
    """A run in a process of its own; see `tiny_run`."""
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "tests.tiny_run", str(workdir), event, str(step)],
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def killed(whole, tmp_path_factory):
    """A run that is killed and resumed several times: directory, state and ended processes."""
    workdir = tmp_path_factory.mktemp("killed")
    events = [
        ("kill-commit", 3),  # before there is another
        ("kill", 4),  # while that of step 3 is being written, or just after
        ("interrupt", 5),
        ("kill-delete", 5),
        ("full", 0),
    ]
    ended = [(event, run_process(workdir, event, step)) for event, step in events]
    resumed = []
    state = train_loop(CONFIG, tiny_split(), workdir, on_step=resumed.append)
    assert resumed == [10, 11, 12]
    return workdir, jax.device_get(state), ended


def test_killed_runs_have_the_expected_exit_status(killed):
    for event, process in killed[2]:
        expected = {"full": 1, "interrupt": 130}.get(event, -signal.SIGKILL)
        assert process.returncode == expected, (event, process.stderr)


def test_killed_run_ends_with_the_same_bits(killed, whole):
    assert_trees_close(killed[1], whole[0])


def test_killed_run_leaves_whole_checkpoints(killed, whole):
    directory = killed[0] / "checkpoints"
    assert {path.name for path in directory.iterdir()} == {"9", "12", SCORES_NAME}
    with open_checkpoints(directory, keep=2) as manager:
        restored = restore(manager, whole[0])
    assert (restored.step, restored.skipped) == (STEPS, ())
    assert_trees_close(restored.state, whole[0])


def test_killed_run_logs_every_step_once(killed, whole):
    assert losses(killed[0]) == whole[1]
    assert [record["step"] for record in whole[1]] == list(range(1, STEPS + 1))


def test_ctrl_c_is_reported_in_one_line(killed):
    process = next(process for event, process in killed[2] if event == "interrupt")
    assert process.stderr == ""
    assert process.stdout == "Stopped by Ctrl-C; the state of step 5 is saved.\n"


def test_full_disk_is_reported_in_one_line(killed):
    process = next(process for event, process in killed[2] if event == "full")
    assert process.stderr == ""
    line = " ".join(process.stdout.split())
    assert line.startswith("Error: ")
    assert f"{killed[0] / 'checkpoints'}" in line
    assert "step 9" in line
    assert "File too large" in line


def test_sigterm_saves_and_the_run_resumes(whole, tmp_path):
    def terminate(done):
        if done == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        train_loop(CONFIG, tiny_split(), tmp_path, on_step=terminate)
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert (tmp_path / "checkpoints" / "8").is_dir()
    resumed = []
    state = train_loop(CONFIG, tiny_split(), tmp_path, on_step=resumed.append)
    assert resumed == [9, 10, 11, 12]
    assert_trees_close(jax.device_get(state), whole[0])
    assert losses(tmp_path) == whole[1]


def test_ctrl_c_saves_and_the_run_resumes(whole, tmp_path):
    def interrupt(done):
        if done == 8:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="step 8 is saved"):
        train_loop(CONFIG, tiny_split(), tmp_path, on_step=interrupt)
    assert signal.getsignal(signal.SIGINT) == before
    resumed = []
    state = train_loop(CONFIG, tiny_split(), tmp_path, on_step=resumed.append)
    assert resumed == [9, 10, 11, 12]
    assert_trees_close(jax.device_get(state), whole[0])
    assert losses(tmp_path) == whole[1]


def test_evaluation_changes_no_bit_and_recompiles_nothing(whole, tmp_path):
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
    embed_batch.clear_cache()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        state = train_loop(with_train(evaluate_every=2), split, tmp_path, evaluate=measure)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert_trees_close(jax.device_get(state), whole[0])
    assert losses(tmp_path) == whole[1]
    measured = [record for record in read_metrics(tmp_path) if record["kind"] == "eval"]
    assert [record["step"] for record in measured] == [6, 12]
    assert sum("train_step" in name for name in programs) == 1
    first, second = compiled_by
    assert sum("embed_batch" in name for name in first) == 1
    assert second == []


# --- The loop around a step of one number -----------------------------------------------------


def counting(nan_at=None, inf_at=None):
    """Makes a step that only counts, and whose loss or state can be non-finite at one step."""

    def create():
        zero = jnp.zeros((), jnp.int32)
        return TrainState(step=zero, params=jnp.zeros(()), batch_stats={}, opt_state={})

    @jax.jit
    def run(state, batch, key):
        done = state.step + 1
        loss = jnp.where(done == (nan_at or -1), jnp.nan, 1.0 / done)
        metrics = {"loss": loss, "cross_entropy": loss, "triplet": 0.0, "learning_rate": 0.1}
        params = jnp.where(done == (inf_at or -1), jnp.inf, state.params + loss)
        return state.replace(step=done, params=params), metrics

    def same(value):
        return value

    return lambda config, steps_per_epoch: ParallelStep(create, run, same, same, 1)


def count(workdir, config=CONFIG, nan_at=None, inf_at=None, **options):
    """The loop around the step that only counts."""
    make_step = counting(nan_at, inf_at)
    return train_loop(config, tiny_split(), workdir, make_step=make_step, **options)


def saved(workdir):
    return set(list_steps(workdir / "checkpoints"))


@pytest.mark.parametrize("nan_at", [1, 3, 5, 6, 7, STEPS])
def test_non_finite_loss_stops_the_run(nan_at, tmp_path):
    """Also where the step is one that would be saved: 3, 6 and 12."""
    last = (nan_at - 1) // 3 * 3
    message = rf"loss of step {nan_at} is nan \(cross_entropy nan, .* triplet 0\)\. "
    message += rf"The last good .* step {last}\." if last else "No checkpoint was saved yet"
    with pytest.raises(NonFiniteLossError, match=message):
        count(tmp_path, nan_at=nan_at)
    assert saved(tmp_path) == {step for step in (last - 3, last) if step > 0}
    assert len(read_metrics(tmp_path)) == nan_at - 1
    resumed = []
    state = count(tmp_path, on_step=resumed.append)
    assert resumed[0] == last + 1
    assert np.isfinite(state.params)


def test_evaluation_waits_until_its_loss_is_known(tmp_path):
    def measure(variables):
        assert np.isfinite(variables["params"])
        return {"mean_ap": 0.5}

    with pytest.raises(NonFiniteLossError):
        count(tmp_path, with_train(evaluate_every=1), nan_at=6, evaluate=measure)


@pytest.mark.parametrize(
    ("every", "expected"), [(0, [12]), (1, [3, 6, 9, 12]), (2, [6, 12]), (3, [9, 12])]
)
def test_evaluate_every_decides_the_epochs(every, expected, tmp_path):
    config = with_train(evaluate_every=every)
    count(tmp_path, config, evaluate=lambda variables: {"mean_ap": 0.5})
    records = [record for record in read_metrics(tmp_path) if record["kind"] == "eval"]
    assert [record["step"] for record in records] == expected


def test_without_evaluation_only_training_is_logged(tmp_path):
    out = io.StringIO()
    count(tmp_path, with_train(evaluate_every=1), console=Console(file=out))
    assert [record["kind"] for record in read_metrics(tmp_path)] == ["train"] * STEPS
    assert saved(tmp_path) == {9, 12}
    assert "mean_ap" not in out.getvalue()


def test_latest_and_best_are_kept(tmp_path):
    scores = iter([0.2, 0.9, 0.3, 0.4, 0.5, 0.6])
    config = with_train(epochs=6, evaluate_every=1)
    count(tmp_path, config, evaluate=lambda variables: {"mean_ap": next(scores)})
    assert saved(tmp_path) == {6, 15, 18}


def test_checkpoint_every_decides_the_epochs(tmp_path):
    count(tmp_path, with_train(epochs=5, checkpoint_every=2, keep_checkpoints=9))
    assert saved(tmp_path) == {6, 12, 15}


def test_state_that_is_not_finite_is_never_saved(tmp_path):
    """The loss of step 6 was finite: it belongs to the state before its update."""
    with pytest.raises(NonFiniteStateError, match=r"step 6 .* \.params\. .* step 3"):
        count(tmp_path, with_train(evaluate_every=2), inf_at=6, evaluate=pytest.fail)
    assert saved(tmp_path) == {3}
    assert np.isfinite(count(tmp_path, with_train(evaluate_every=2)).params)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("epoch", [2, 4])
def test_run_stopped_in_its_evaluation_resumes_with_it(epoch, number, tmp_path):
    """Nothing is lost, and the signal does not wait for the end of the evaluation."""
    config = with_train(evaluate_every=2, keep_checkpoints=9)
    expected = count(tmp_path / "whole", config, evaluate=lambda variables: {"mean_ap": 0.5})
    steps = []

    def stop_in_evaluation(variables):
        if epoch * 3 == steps[-1]:
            signal.raise_signal(number)
            raise AssertionError
        return {"mean_ap": 0.5}

    workdir = tmp_path / "run"
    error = KeyboardInterrupt if number == signal.SIGINT else Interrupted
    with pytest.raises(error):
        count(workdir, config, evaluate=stop_in_evaluation, on_step=steps.append)
    assert max(saved(workdir)) == epoch * 3
    measured = []

    def measure(variables):
        measured.append(len(steps))
        return {"mean_ap": 0.5}

    resumed = []
    state = count(workdir, config, evaluate=measure, on_step=resumed.append)
    assert state.params == expected.params
    assert resumed == list(range(epoch * 3 + 1, STEPS + 1))
    assert len(measured) == (2 if epoch == 2 else 1)
    for name in ("train", "eval"):
        steps_of = [r["step"] for r in read_metrics(workdir) if r["kind"] == name]
        assert steps_of == ([6, 12] if name == "eval" else list(range(1, STEPS + 1)))
    assert read_scores(workdir / "checkpoints") == {6: 0.5, 12: 0.5}
    assert read_scores(workdir / "checkpoints") == read_scores(tmp_path / "whole" / "checkpoints")


def test_failed_evaluation_loses_no_step(tmp_path):
    def fail(variables):
        raise InputError("no query has a match")

    with pytest.raises(InputError):
        count(tmp_path, with_train(evaluate_every=1), evaluate=fail)
    assert saved(tmp_path) == {3}


def test_ctrl_c_in_the_last_step_leaves_the_evaluation_to_the_next_run(tmp_path):
    def interrupt(done):
        if done == STEPS:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=f"step {STEPS} is saved"):
        count(tmp_path, evaluate=pytest.fail, on_step=interrupt)
    count(tmp_path, evaluate=lambda variables: {"mean_ap": 0.5}, on_step=pytest.fail)
    assert read_scores(tmp_path / "checkpoints") == {STEPS: 0.5}


def test_log_that_was_cut_is_noticed(tmp_path):
    count(tmp_path, with_train(epochs=4))
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    log = tmp_path / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:5]))
    out = io.StringIO()
    count(tmp_path, with_train(epochs=4), console=Console(file=out, width=200))
    assert re.search(r"metrics\.jsonl .* 4 records .* 6 to 9 are missing", out.getvalue())
    steps = [record["step"] for record in read_metrics(tmp_path)]
    assert steps == [1, 2, 3, 4, 5, 10, 11, 12]


def test_finished_run_does_nothing(tmp_path):
    def never(*_):
        raise AssertionError

    state = count(tmp_path, evaluate=lambda variables: {"rank-1": 0.5})
    before = read_metrics(tmp_path)
    again = count(tmp_path, initialize=never, evaluate=never, on_step=never)
    assert again.params == state.params
    assert read_metrics(tmp_path) == before


def test_initialize_gives_the_first_state(tmp_path):
    plain = count(tmp_path / "plain")
    state = count(
        tmp_path / "from100",
        initialize=lambda variables: variables | {"params": variables["params"] + 100},
    )
    assert state.params == pytest.approx(plain.params + 100)


def test_damaged_checkpoint_is_skipped_and_its_steps_run_again(tmp_path, capsys):
    state = count(tmp_path)
    expected = losses(tmp_path)
    for path in (tmp_path / "checkpoints" / "12").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    resumed = []
    again = count(tmp_path, on_step=resumed.append, console=Console())
    assert resumed == [10, 11, 12]
    assert again.params == state.params
    assert losses(tmp_path) == expected
    printed = " ".join(capsys.readouterr().out.split())
    assert re.search(r"checkpoint of step 12 .* damaged .* step 9 of 12", printed)
    assert saved(tmp_path) == {9, 12}
    # The new checkpoint of step 12 is a good one.
    assert count(tmp_path, on_step=pytest.fail).params == state.params


def test_run_with_damaged_checkpoints_only_stops(tmp_path):
    count(tmp_path)
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"those of steps \[9, 12\] are damaged"):
        count(tmp_path)
    assert saved(tmp_path) == {9, 12}


def test_another_configuration_is_refused(tmp_path):
    count(tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ConfigChangedError, match=r"train\.seed was 0, is now 7"):
        count(tmp_path, with_train(seed=7))
    assert (tmp_path / "config.json").read_text() == before
    assert json.loads(before)["train"]["seed"] == 0


def test_changed_configuration_file_is_refused(tmp_path):
    """Also if the command is changed in the same way."""
    count(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"margin": 0.6', '"margin": 0.7'))
    with pytest.raises(InputError, match=r"config\.json was changed .* step 12"):
        count(tmp_path, replace(CONFIG, loss=replace(CONFIG.loss, margin=0.7)))
    path.unlink()
    assert count(tmp_path, on_step=pytest.fail).step == STEPS


def test_run_directory_of_version_0_1_0_resumes(tmp_path):
    state = count(tmp_path)
    path = tmp_path / "config.json"
    tree = json.loads(path.read_text())
    del tree["format"]
    tree["train"]["persons"] = tree["train"].pop("num_ids")
    tree["train"]["images"] = tree["train"].pop("num_instances")
    tree["train"]["batch_norm"] = "synchronised"
    path.write_text(json.dumps(tree))
    for checkpoint in (tmp_path / "checkpoints").glob("*/_CHECKPOINT_METADATA"):
        metadata = json.loads(checkpoint.read_text())
        metadata["custom_metadata"] = {"digest": metadata["custom_metadata"]["digest"]}
        checkpoint.write_text(json.dumps(metadata))
    assert count(tmp_path, on_step=pytest.fail).params == state.params


def test_split_that_does_not_fit_the_configuration_is_refused(tmp_path):
    split = tiny_split()
    model = replace(CONFIG.model, num_classes=5)
    with pytest.raises(InputError, match=r"num_classes=5, but tiny train has 6 identities"):
        train_loop(replace(CONFIG, model=model), split, tmp_path)
    small = replace(split, images=split.images[:, ::2])
    with pytest.raises(InputError, match=r"are \(16, 16\), .* image_size=\(32, 16\)"):
        train_loop(CONFIG, small, tmp_path)
    with pytest.raises(InputError, match=r"7 .* 6"):
        train_loop(with_train(num_ids=7), split, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", [0, 2, 3, 7, 11, STEPS])
def test_training_batches_of_a_resumed_run_are_the_rest(start):
    batches = list(training_batches(CONFIG.train, tiny_split(), 0))
    assert len(batches) == STEPS
    assert_trees_close(list(training_batches(CONFIG.train, tiny_split(), start)), batches[start:])


def test_training_batches_of_processes_are_parts_of_the_whole():
    whole = training_batches(CONFIG.train, tiny_split(), 5)
    parts = (training_batches(CONFIG.train, tiny_split(), 5, number, 2) for number in (0, 1))
    for batch, first, second in zip(whole, *parts, strict=True):
        assert_trees_close(
            {name: np.concatenate([first[name], second[name]]) for name in batch}, batch
        )
