"""The plain launch of docs/pods.md: two processes on one host, interrupted, equal to one."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from experiments import market_rmgl
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.experiment.options import parse_run
from rmgl_jax.training.logger import read_metrics
from rmgl_jax.training.scores import list_steps
from tests.compilation import xla_flags

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[1]
# Less to compile; all else is the tiny preset's.
OPTIONS = (
    "--preset tiny --model.paths original --model.granularities 2 --model.last_stage res4 "
    "--augment.shifting.probability 0 --train.evaluate_every 0"
)

CONNECTION_NOTE = re.compile(r"Gloo\]|connected peer ranks|^$")
"""Lines of JAX about connections, which may be written in two parts."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def launch(directory, programs, devices, data="data", works=("work", "work"), options=OPTIONS):
    """Runs programs side by side; gives exit statuses and what each printed.

    `devices` is the number of each, or one number for all.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    devices = [devices] * len(programs) if isinstance(devices, int) else devices
    port, ended = free_port(), []
    with ExitStack() as stack:
        processes = []
        for number, program in enumerate(programs):
            command = [sys.executable, *program, *shlex.split(options)]
            command += ["--workdir", str(directory / works[number])]
            command += ["--data_dir", str(directory / data)]
            if len(programs) > 1:
                command += ["--distributed.enabled", "--distributed.coordinator"]
                command += [f"localhost:{port}", "--distributed.processes", str(len(programs))]
                command += ["--distributed.process", str(number)]
            output = stack.enter_context(open(directory / f"output{number}", "w+"))
            process = subprocess.Popen(
                command,
                env=environment | {"XLA_FLAGS": xla_flags(devices[number])},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append((process, output))
        for process, output in processes:
            status = process.wait(timeout=900)
            output.seek(0)
            ended.append((status, output.read()))
    return ended


PLAIN = ["-m", "experiments.synthetic_rmgl"]
# Its process gets SIGTERM when two steps are done.
TERMINATED = ["-m", "tests.interrupted_run", "2"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("pods")


@pytest.fixture(scope="module")
def interrupted(directory):
    """The first launch, on an empty directory, in which one process is terminated."""
    ended = launch(directory, [PLAIN, TERMINATED], devices=1)
    seen = [str(step) for step in list_steps(directory / "work" / "checkpoints")]
    return ended, seen, read_metrics(directory / "work")


@pytest.fixture(scope="module")
def finished(directory, interrupted):
    """The same command again, which goes on to the end."""
    return launch(directory, [PLAIN, PLAIN], devices=1)


def test_sigterm_to_one_process_saves_and_ends_both(interrupted):
    ended, checkpoints, records = interrupted
    assert [status for status, _ in ended] == [143, 143], ended
    (step,) = re.findall(r"Stopped by SIGTERM; the state of step (\d+) is saved", ended[0][1])
    assert step in checkpoints
    # Nothing was half-written, and both saw the same last step.
    assert all(name.isdigit() for name in checkpoints)
    assert max(record["step"] for record in records) == int(step)


def test_data_was_prepared_by_one_of_them(interrupted):
    printed = [text for _, text in interrupted[0]]
    assert sum(text.count("rendering tiny") for text in printed) == 1


def test_two_processes_equal_one(directory, finished):
    assert [status for status, _ in finished] == [0, 0], finished
    ((status, text),) = launch(directory, [PLAIN], devices=2, works=["one"])
    assert status == 0, text
    two, one = (
        EvaluationResult.from_json((directory / name / "result.json").read_text())
        for name in ("work", "one")
    )
    for name, value in asdict(one.plain).items():
        np.testing.assert_allclose(getattr(two.plain, name), value, atol=1e-5, err_msg=name)
    assert one.step == two.step
    # Every step of the way, too; those before the interruption stand in the log once.
    logs = [read_metrics(directory / name) for name in ("work", "one")]
    for two_record, one_record in zip(*logs, strict=True):
        speed = {"images_per_second", "mfu"}
        assert two_record.keys() - speed == one_record.keys() - speed
        for name in one_record.keys() - speed - {"kind"}:
            np.testing.assert_allclose(
                two_record[name], one_record[name], rtol=1e-5, atol=1e-5, err_msg=name
            )


def test_only_process_0_writes_and_prints(directory, finished):
    work = directory / "work"
    assert {path.name for path in work.iterdir()} == {
        "checkpoints",
        "config.json",
        "data.json",
        "metrics.jsonl",
        "result.json",
        "run.json",
        "tensorboard",
    }
    # One file of events for each of the two launches.
    assert len(list((work / "tensorboard").iterdir())) == 2
    last = max(list_steps(work / "checkpoints"))
    assert json.loads((work / "result.json").read_text())["step"] == str(last)
    main_process, other = (text for _, text in finished)
    assert "Resuming from step" in main_process
    assert "rank-1" in main_process
    # JAX's own notes of connections are all that the other prints.
    assert [line for line in other.splitlines() if not CONNECTION_NOTE.search(line)] == []


# Its process gets SIGTERM after the last step, while it is still busy.
TERMINATED_AT_THE_END = [
    "-c",
    "import os, signal, sys, time\n"
    "from experiments import synthetic_rmgl\n"
    "from rmgl_jax.experiment import command_line, run\n"
    "def rank_baselines(*_):\n"
    "    os.kill(os.getpid(), signal.SIGTERM)\n"
    "    time.sleep(600)\n"
    "run.rank_baselines = rank_baselines\n"
    "command_line.run_main(synthetic_rmgl.PRESETS, {}, '')\n",
]


def test_sigterm_after_the_last_step_ends_at_once(directory, finished):
    programs = [[*program, "--baselines"] for program in (TERMINATED_AT_THE_END, PLAIN)]
    start = time.monotonic()
    (status, printed), _ = launch(directory, programs, devices=1)
    assert status == 143, printed
    assert time.monotonic() - start < 500


def test_processes_with_different_numbers_of_devices_end(directory):
    ended = launch(directory, [PLAIN, PLAIN], devices=[1, 3], works=["devices", "devices"])
    assert [status for status, _ in ended] == [1, 1], ended
    for _, printed in ended:
        assert "[1, 3]" in printed
        assert "Traceback" not in printed
    assert not (directory / "devices").exists()


def test_processes_with_different_options_end(directory, finished):
    """They end with a message, instead of waiting for each other for ever."""
    programs = [PLAIN, [*PLAIN, "--train.seed", "1"]]
    ended = launch(directory, programs, devices=1, works=("seeds", "seeds"))
    assert [status for status, _ in ended] == [1, 1], ended
    main_process, other = (" ".join(text.split()) for _, text in ended)
    assert "process 1" in main_process
    assert "train.seed was 0, is now 1" in other


def test_pods_page_shows_the_tested_command():
    text = (ROOT / "docs" / "pods.md").read_text().replace("\\\n", " ")
    plain = re.search(r"python -m experiments\.market_rmgl .*--distributed\.coordinator.*", text)
    options = parse_run(market_rmgl.PRESETS, "", shlex.split(plain.group())[3:])
    assert asdict(options.distributed) == {
        "enabled": True,
        "coordinator": "host0:12345",
        "processes": 2,
        "process": 0,
        "start_timeout": 300,
        "heartbeat_timeout": 100,
    }
