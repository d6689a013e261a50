"""Every step is logged once, also by interrupted runs."""

import io
import json
import math
import re

import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event

from data_prep.errors import InputError, WriteError
from rmgl_jax.training.logger import LOG_NAME, MetricLogger, missing_records, read_metrics
from tests.flipped_bits import assert_flips_are_noticed
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


def test_read_metrics_returns_the_records(tmp_path):
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


def test_read_metrics_of_nothing_is_empty(tmp_path):
    assert read_metrics(tmp_path) == []
    write(tmp_path, [])
    assert read_metrics(tmp_path) == []


def test_write_reaches_the_file_at_once(tmp_path):
    """A run that is killed loses none."""
    with MetricLogger(tmp_path, 10) as logger:
        logger.write(1, {"loss": 0.5}, "train")
        assert steps_in(tmp_path) == [1]


def test_resumed_run_logs_no_step_twice(tmp_path):
    write(tmp_path, [1, 2, 3, 4, 5])
    write(tmp_path, [4, 5, 6], resumed_at=3)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]
    write(tmp_path, [1], resumed_at=0)
    assert steps_in(tmp_path) == [1]


@pytest.mark.parametrize("cut", [1, 2, 5, 20])
def test_read_metrics_skips_a_torn_last_line(cut, tmp_path):
    write(tmp_path, [1, 2, 3], accuracy=0.123456)
    path = tmp_path / LOG_NAME
    path.write_bytes(path.read_bytes()[:-cut])
    # Where only the end of the line is missing, the record is whole.
    assert steps_in(tmp_path) == ([1, 2, 3] if cut == 1 else [1, 2])
    write(tmp_path, [3, 4], resumed_at=2)
    assert steps_in(tmp_path) == [1, 2, 3, 4]
    assert path.read_text().endswith("}\n")


def test_write_keeps_numbers_that_are_not_finite_as_text(tmp_path):
    write(tmp_path, [1], mean_ap=math.nan, worst=math.inf)
    (line,) = (tmp_path / LOG_NAME).read_text().splitlines()
    record = json.loads(line, parse_constant=pytest.fail)
    assert (record["mean_ap"], record["worst"]) == ("nan", "inf")


def test_read_metrics_names_a_damaged_line(tmp_path):
    write(tmp_path, [1, 2, 3])
    path = tmp_path / LOG_NAME
    path.write_text(path.read_text().replace('"step": 2', '"step": \0'))
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 2: "):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "null",
        "3",
        "[]",
        '"text"',
        "{}",
        '{"kind": "train"}',
        '{"kind": "train", "step": "2"}',
        '{"kind": "train", "step": 2.5}',
        '{"kind": 3, "step": 2}',
        '{"kind": "train", "step": 2, "loss": [1]}',
        '{"kind": "train", "step": 2, "loss": "much"}',
        '{"kind": "train", "step": 2, "loss": "1"}',
        '{"kind": "train", "step": 2, "loss": true}',
        '{"kind": "train", "step": 2, "loss": NaN}',
        '{"kind": "train", "step": 2, "crc32": null}',
        '{"kind": "train", "step": 2, "loss": 1' + 400 * "0" + "}",
        10_000 * "[",
    ],
)
def test_read_metrics_names_a_line_that_is_no_record(line, tmp_path):
    """A run does not resume on it, and nothing is lost."""
    write(tmp_path, [1, 2, 3])
    path = tmp_path / LOG_NAME
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, lines[2], ""]))
    before = path.read_text()
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 2: "):
        write(tmp_path, [4], resumed_at=3)
    assert path.read_text() == before


def test_read_metrics_refuses_or_ignores_every_flipped_bit(tmp_path):
    write(tmp_path, [1, 2, 3], mean_ap=math.nan, rate=1e-5)
    path = tmp_path / LOG_NAME
    content, expected = path.read_bytes(), read_metrics(tmp_path)

    def read(damaged):
        damaged.rename(path)
        return read_metrics(tmp_path)

    assert_flips_are_noticed(content, read, expected, count=1000)


def test_read_metrics_notices_a_damaged_end_of_the_last_line(tmp_path):
    """It is no torn line, whose record would be left out."""
    write(tmp_path, [1, 2, 3])
    path = tmp_path / LOG_NAME
    path.write_text(path.read_text()[:-1] + "J")
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 3: "):
        read_metrics(tmp_path)


def test_read_metrics_names_a_line_with_another_checksum(tmp_path):
    write(tmp_path, [1, 2, 3])
    path = tmp_path / LOG_NAME
    path.write_text(path.read_text().replace('"loss": 0.5', '"loss": 0.7'))
    with pytest.raises(InputError, match=r"metrics\.jsonl is damaged in line 2: .*\d{6,}"):
        read_metrics(tmp_path)


def test_records_of_an_earlier_version_have_no_checksum_until_the_run_resumes(tmp_path):
    write(tmp_path, [1, 2])
    path = tmp_path / LOG_NAME
    new, records = path.read_text(), read_metrics(tmp_path)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert path.read_text() != new
    assert read_metrics(tmp_path) == records
    write(tmp_path, [], resumed_at=2)
    assert path.read_text() == new


def test_missing_records_counts_the_steps_without_one(tmp_path):
    write(tmp_path, [1, 2, 5])
    records = read_metrics(tmp_path)
    assert re.search(r"metrics\.jsonl .* 2 records .* 3 to 4 ", missing_records(records, 5))
    assert re.search(r" 3 records .* 3 to 6 ", missing_records(records, 6))
    assert missing_records(records, 2) is None
    assert missing_records([], 0) is None
    # A damaged result may claim any step.
    assert re.search(
        f" {10**18 - 3:,} records .* 3 to {10**18:,} ", missing_records(records, 10**18)
    )


@pytest.mark.parametrize(("size", "first"), [(4_000, "metrics.jsonl"), (15_000, "events")])
def test_write_on_a_full_disk_raises(size, first, tmp_path):
    """Whichever file meets it first; no writer of its own waits for ever."""
    # One record takes 12 kB in metrics.jsonl, and 18 kB in the events.
    values = {f"{number:03}": 0.5 for number in range(1000)}
    write(tmp_path, [1])
    message = r"The record of step 2 cannot be written to .*: File too large"
    with (
        full_disk(size),
        pytest.raises(WriteError, match=message),
        MetricLogger(tmp_path, 10, resumed_at=1) as logger,
    ):
        logger.write(2, values, "train")
    steps = [1] if first == "metrics.jsonl" else [1, 2]
    assert steps_in(tmp_path) == steps
    write(tmp_path, [2, 3], resumed_at=1)
    assert steps_in(tmp_path) == [1, 2, 3]


def test_update_progress_without_a_terminal_prints_a_line_once_a_minute(tmp_path):
    out = io.StringIO()
    with MetricLogger(tmp_path, 10, console=Console(file=out, width=80)) as logger:
        for step in range(1, 6):
            logger.update_progress(step, "1/2", f"step {step}/10")
        logger.log("Evaluated.")
    assert out.getvalue().splitlines() == ["epoch 1/2 · step 1/10", "Evaluated."]


def test_update_progress_on_a_terminal_draws_a_bar(tmp_path):
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    with MetricLogger(tmp_path, 10, resumed_at=4, console=console) as logger:
        logger.update_progress(5, "1/2", "step 5/10")
        logger.log("Evaluated.")
    assert "50%" in out.getvalue()
    assert "step 5/10" in out.getvalue()
    assert "Evaluated." in out.getvalue()


def test_logger_without_a_console_is_silent(tmp_path, capsys):
    with MetricLogger(tmp_path, 10) as logger:
        logger.update_progress(1, "1/2", "step 1/10")
        logger.log("Evaluated.")
    assert capsys.readouterr() == ("", "")
