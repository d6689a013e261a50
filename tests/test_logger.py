"""The logger has every step once, whatever happened to the run that wrote it."""

import io
import json
import math
import os

import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from rmgl_jax.training.logger import LOG_NAME, MetricLogger, read_metrics
from tests.full_disk import full_disk


def write(workdir, steps, resumed_at=0, **changes):
    with MetricLogger(workdir, 10, resumed_at) as logger:
        for step in steps:
            logger.write(step, {"loss": 1 / step} | changes, "train")


def steps_in(workdir):
    return [record["step"] for record in read_metrics(workdir)]


def events(workdir):
    """(name, step, value) of every TensorBoard event, in the order they were written."""
    found = []
    for path in sorted((workdir / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime):
        content = path.read_bytes()
        while content:  # A record: its length in 8 bytes, 4 of checksum, itself, 4 of checksum.
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            content = content[16 + length :]
    return found


def test_records_come_back(tmp_path):
    with MetricLogger(tmp_path, 10) as logger:
        logger.write(1, {"loss": 0.5, "learning_rate": 1e-5}, "train")
        logger.write(1, {"mean_ap": 0.25}, "eval")
    assert read_metrics(tmp_path) == [
        {"kind": "train", "step": 1, "loss": 0.5, "learning_rate": 1e-5},
        {"kind": "eval", "step": 1, "mean_ap": 0.25},
    ]
    assert events(tmp_path) == [
        ("train/loss", 1, 0.5),
        ("train/learning_rate", 1, pytest.approx(1e-5)),
        ("eval/mean_ap", 1, 0.25),
    ]


def test_nothing_written_is_nothing_read(tmp_path):
    assert read_metrics(tmp_path) == []
    write(tmp_path, [])
    assert read_metrics(tmp_path) == []


def test_a_record_is_in_the_file_at_once(tmp_path):
    """A run that is killed loses none."""
    with MetricLogger(tmp_path, 10) as logger:
        logger.write(1, {"loss": 0.5}, "train")
        assert steps_in(tmp_path) == [1]


def test_a_resumed_run_writes_no_step_twice(tmp_path):
    write(tmp_path, [1, 2, 3, 4, 5])
    write(tmp_path, [4, 5, 6], resumed_at=3)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]
    write(tmp_path, [1], resumed_at=0)
    assert steps_in(tmp_path) == [1]


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
def test_a_torn_last_line_is_no_record(cut, tmp_path):
    write(tmp_path, [1, 2, 3], accuracy=0.123456)
    path = tmp_path / LOG_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    # Where only the end of the line is missing, the record is whole.
    assert steps_in(tmp_path) == ([1, 2, 3] if cut == 1 else [1, 2])
    write(tmp_path, [3, 4], resumed_at=2)
    assert steps_in(tmp_path) == [1, 2, 3, 4]
    assert path.read_text().endswith("}\n")


def test_numbers_that_are_not_finite_stay_json(tmp_path):
    write(tmp_path, [1], mean_ap=math.nan, worst=math.inf)
    (line,) = (tmp_path / LOG_NAME).read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)
    assert (record["mean_ap"], record["worst"]) == ("nan", "inf")


def test_a_damaged_line_is_named(tmp_path):
    write(tmp_path, [1, 2, 3])
    path = tmp_path / LOG_NAME
    path.write_text(path.read_text().replace('"step": 2', '"step": \0'))
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged in line 2: "):
        read_metrics(tmp_path)


@pytest.mark.parametrize("first", ["metrics.jsonl", "events"])
def test_a_full_disk_ends_it_and_is_told(first, tmp_path):
    """Whichever of the files meets it first; no writer of its own waits for ever."""
    name = "a" * (100 if first == "events" else 1)
    logger = MetricLogger(tmp_path, 10)
    if first == "events":
        logger._file.close()
        logger._file = open(os.devnull, "w")  # noqa: SIM115 (the logger closes it)

    def run():
        with logger:
            for step in range(1, 1000):
                logger.write(step, {f"{name}{number}": 0.5 for number in range(20)}, "train")

    message = r"The record of step \d+ cannot be written to .*: File too large\."
    with full_disk(), pytest.raises(OSError, match=message):
        run()
    if first == "metrics.jsonl":
        kept = steps_in(tmp_path)
        assert kept == list(range(1, len(kept) + 1))
        write(tmp_path, [len(kept) + 1], resumed_at=len(kept))
        assert steps_in(tmp_path) == [*kept, len(kept) + 1]


def test_without_a_terminal_a_line_is_printed_now_and_then(tmp_path):
    out = io.StringIO()
    with MetricLogger(tmp_path, 10, console=Console(file=out, width=80)) as logger:
        for step in range(1, 6):
            logger.update_progress(step, "1/2", f"step {step}/10")
        logger.log("Evaluated.")
    assert out.getvalue().splitlines() == ["epoch 1/2 · step 1/10", "Evaluated."]


def test_on_a_terminal_there_is_a_bar(tmp_path):
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with MetricLogger(tmp_path, 10, resumed_at=4, console=console) as logger:
        logger.update_progress(5, "1/2", "step 5/10")
        logger.log("Evaluated.")
    assert "50%" in out.getvalue()
    assert "step 5/10" in out.getvalue()
    assert "Evaluated." in out.getvalue()


def test_silent_without_a_console(tmp_path, capsys):
    with MetricLogger(tmp_path, 10) as logger:
        logger.update_progress(1, "1/2", "step 1/10")
        logger.log("Evaluated.")
    assert capsys.readouterr() == ("", "")
