"""The record of a GPU, rehearsed on the CPU with the tiny preset."""

import json
import os
import sys
import time

import pytest

from benchmarks import gpu_record
from benchmarks.gpu_record import record, run_stage, run_training, tables
from benchmarks.gpu_stages import PROBLEMS, stages
from data_prep.errors import InputError
from rmgl_jax.experiment.initial_weights import check_initial_weights
from rmgl_jax.experiment.options import parse_run
from rmgl_jax.experiment.presets import presets_for

TINY = PROBLEMS["tiny"]


def run_here(name, problem, seconds):
    """A stage in this process, which already has JAX."""
    return stages(problem)[name]()


def no_training(problem, folder, seconds):
    return {"status": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("record")
    record(folder, TINY, 60, run_here, no_training)
    return folder


def read(folder):
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.network
def test_record_has_every_stage(folder):
    found = read(folder)
    assert found.keys() == {*stages(TINY), "training"}
    assert not [name for name, value in found.items() if "error" in value]
    assert [found[name]["batch"] for name in ("step", "step_by_pmap", "batch_32")] == [16, 16, 32]
    assert found["parity"]["largest_difference_of_largest_value"] == {"maps": 0, "gradients": 0}
    assert found["remat"]["flops"] > found["step"]["flops"]
    assert found["embed"]["images_per_second"] > 0
    assert found["host_gap"]["gap"] > -1


@pytest.mark.network
def test_tables_have_a_row_for_each_measurement(folder):
    text = tables(folder)
    for row in ("jit | 16", "pmap | 16", "jit | 32", "remat | 16"):
        assert f"| step, {row} |" in text


def stage_by(outcome):
    """Runs a stage as if, and remembers its names."""
    ran = []

    def run(name, problem, seconds):
        ran.append(name)
        return dict(outcome)

    return run, ran


def test_record_repeats_only_what_was_not_measured(tmp_path):
    record(tmp_path, TINY, 1, stage_by({"images_per_second": 5.0})[0], no_training)
    for name, reason in (("embed", {"error": "broken"}), ("torch", {"skipped": "not installed"})):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | reason))
    run, ran = stage_by({})
    record(tmp_path, TINY, 1, run, no_training)
    assert ran == ["torch", "embed"]


def test_rehearsal_is_no_measurement_of_another_preset(tmp_path):
    record(tmp_path, TINY, 1, stage_by({})[0], no_training)
    run, ran = stage_by({"platform": "gpu"})
    record(tmp_path, PROBLEMS["gpu"], 1, run, no_training)
    assert ran == list(stages(PROBLEMS["gpu"]))


def test_preset_for_accelerators_refuses_the_cpu(tmp_path):
    run, ran = stage_by({"platform": "cpu"})
    with pytest.raises(InputError):
        record(tmp_path, PROBLEMS["gpu"], 1, run, no_training)
    assert ran == ["environment"]
    assert not list(tmp_path.iterdir())


def test_record_says_which_stages_had_no_time(tmp_path):
    record(tmp_path, TINY, 0, run_here, no_training)
    assert "environment: no time was left" in tables(tmp_path)


def test_record_goes_on_after_a_stage_that_failed(tmp_path):
    record(tmp_path, TINY, 1, stage_by({"error": "broken"})[0], no_training)
    assert tables(tmp_path).count(": broken") == len(stages(TINY))
    assert read(tmp_path)["training"]["status"] == 0


@pytest.mark.parametrize("preset", PROBLEMS)
def test_training_needs_no_weights(preset, tmp_path):
    command, *arguments = gpu_record.training_command(PROBLEMS[preset], tmp_path)
    assert command == "train"
    run = parse_run(presets_for(PROBLEMS[preset].dataset), "", arguments)
    check_initial_weights(run.experiment, run.weights, run.from_scratch)


# A process with a child that would run on: it writes the child's number, and waits for it.
PARENT = (
    "import subprocess, sys, pathlib;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid));"
    "child.wait()"
)


def is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_stopped_commands_leave_no_process(tmp_path):
    file = tmp_path / "pid"
    with gpu_record.started([sys.executable, "-c", PARENT, str(file)]):
        while not file.exists() or not file.read_text():
            time.sleep(0.01)
        child = int(file.read_text())
        assert is_there(child)
    end = time.monotonic() + 60
    while is_there(child) and time.monotonic() < end:  # until init has collected it
        time.sleep(0.01)
    assert not is_there(child)


def test_failures_are_no_measurements(tmp_path, monkeypatch):
    assert "error" in run_stage("no such stage", TINY, 60)
    monkeypatch.setattr(gpu_record, "training_command", lambda *_: ["train", "--no-such-option"])
    assert "error" in run_training(TINY, tmp_path, 60)


def test_training_may_print_more_than_a_pipe_holds(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nyes | head -c 200000\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    assert run_training(TINY, tmp_path, 5)["status"] == 0
