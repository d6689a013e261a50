"""Logs metrics to JSON lines, TensorBoard and the console."""

import contextlib
import json
import math
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from data_prep.errors import InputError, WriteError
from data_prep.files import write_text
from data_prep.json_text import parse_json

LOG_NAME = "metrics.jsonl"
_CHECKSUM = "crc32"
_SECONDS_BETWEEN_LINES = 60.0
_SECONDS_BETWEEN_FLUSHES = 30.0


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Reads all records of a run, oldest first, without a last line that a killed run left torn.

    Each line is compared with its checksum, which the records do not include. The lines of earlier
    versions have none.

    Raises:
        InputError: another line is damaged, or is not a record.
    """
    path = workdir / LOG_NAME
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records, has_checksum = [], []
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line)
        except ValueError as error:
            # A torn line lacks the end of its object.
            if number < len(lines) or "}" in line:
                raise InputError(f"{path} is damaged in line {number}: {error}.") from error
            continue
        if not _is_record(record):
            raise InputError(
                f"{path} is damaged in line {number}: expected a record with its kind and step, "
                f"got {line[:80]}."
            )
        checksum = record.pop(_CHECKSUM, None)
        if checksum not in (None, _checksum(record)):
            raise InputError(
                f"{path} is damaged in line {number}: its checksum is {_checksum(record)}, not the "
                f"recorded {checksum}. If the line is removed, the other records are read."
            )
        has_checksum.append(checksum is not None)
        records.append(record)
    if any(has_checksum) and not all(has_checksum):
        raise InputError(
            f"{path} is damaged in line {has_checksum.index(False) + 1}: it has no {_CHECKSUM}, "
            "which other lines have."
        )
    return records


def missing_records(records: Sequence[Mapping[str, Any]], done: int) -> str | None:
    """Returns a sentence if records of the first `done` steps are missing, else None.

    No run brings them back. A run writes the record of a step before it saves the step.

    Args:
        records: records of the run, as `read_metrics` reads them.
        done: number of steps that were saved.
    """
    steps = range(1, done + 1)
    trained = {record["step"] for record in records if record["kind"] == "train"}
    logged = {step for step in trained if step in steps}
    count = done - len(logged)
    if not count:
        return None
    first, last = (
        next(step for step in order if step not in logged) for order in (steps, reversed(steps))
    )
    return (
        f"{LOG_NAME} is damaged: {count:,} records of the steps {first:,} to {last:,} are missing."
    )


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps({**record, _CHECKSUM: _checksum(record)}) + "\n"


def _checksum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(record).encode())


def _is_record(record: Any) -> bool:
    """True for an object as `MetricLogger.write` writes it: kind, step and numbers."""
    if not isinstance(record, dict):
        return False
    for name, value in record.items():
        if name != "kind" and value not in ("nan", "inf", "-inf") and not _is_finite(value):
            return False
    return record.get("kind") in ("train", "eval") and type(record.get("step")) is int


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # An integer that no float can be.
        return False


class MetricLogger:
    """Writes the records of a run. A context manager, for process 0 only.

    Args:
        workdir: run directory; gets `metrics.jsonl` and `tensorboard/`.
        steps: number of steps of the whole run.
        resumed_at: step that the run resumes from. Records of later steps, written by a run that
            was killed before its next checkpoint, are dropped, so that no step is there twice.
        console: shows a progress bar; None shows nothing.
    """

    def __init__(
        self, workdir: Path, steps: int, resumed_at: int = 0, console: Console | None = None
    ) -> None:
        kept = [record for record in read_metrics(workdir) if record["step"] <= resumed_at]
        path = workdir / LOG_NAME
        write_text(path, "".join(map(_line, kept)))
        self._file = path.open("a", buffering=1)
        # Imported late, because it imports PyTorch where that is installed.
        from tensorboardX.record_writer import RecordWriter

        # Written directly: tensorboardX's own thread dies on a full disk, and its queue then blocks
        # the run for ever.
        events = workdir / "tensorboard" / f"events.out.tfevents.{time.time():.0f}.{resumed_at}"
        events.parent.mkdir(exist_ok=True)
        self._events = RecordWriter(str(events))
        self._next_flush = 0.0
        self._event(0, file_version="brain.Event:2")
        self._event(resumed_at + 1, session_log={"status": "START"})
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
            console=console or Console(quiet=True),
            disable=console is None or not console.is_terminal,
            speed_estimate_period=120,
        )
        # Without a terminal for the bar, a line is printed once a minute.
        self._lines = console is not None and not console.is_terminal
        self._next_line = 0.0
        self._task = self._progress.add_task(
            "train", total=steps, completed=resumed_at, epoch="-", text="compiling the step"
        )

    def __enter__(self) -> "MetricLogger":
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
        with contextlib.ExitStack() as stack:
            if error is not None:
                # Closing meets the same error again, which is already propagating.
                stack.enter_context(contextlib.suppress(OSError))
            stack.callback(self._file.close)
            stack.callback(self._events.close)

    def write(self, step: int, values: Mapping[str, float], kind: str) -> None:
        """Writes one record of `kind` ("train" or "eval") to both logs.

        Raises:
            WriteError: it cannot be written, because the disk is full for example.
        """
        clean = {
            name: value if math.isfinite(value) else str(value) for name, value in values.items()
        }
        scalars = [
            {"tag": f"{kind}/{name}", "simple_value": value} for name, value in values.items()
        ]
        try:
            self._file.write(_line({"kind": kind, "step": step, **clean}))
            self._event(step, summary={"value": scalars})
            if time.monotonic() >= self._next_flush:
                self._events.flush()
                self._next_flush = time.monotonic() + _SECONDS_BETWEEN_FLUSHES
        except OSError as error:
            raise WriteError(
                f"The record of step {step} cannot be written to {self._file.name}: "
                f"{error.strerror}."
            ) from error

    def _event(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, **content)
        self._events.write(event.SerializeToString())

    def update_progress(self, step: int, epoch: str, text: str) -> None:
        """Moves the progress bar to a step."""
        self._progress.update(self._task, completed=step, epoch=epoch, text=text)
        if self._lines and time.monotonic() >= self._next_line:
            self.log(f"epoch {epoch} · {text}")
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def log(self, message: str) -> None:
        """Prints a line above the progress bar."""
        self._progress.console.print(message, highlight=False)
