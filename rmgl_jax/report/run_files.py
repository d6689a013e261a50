"""The files of a run directory that a report is made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.training.logger import LOG_NAME, missing_records, read_metrics
from rmgl_jax.training.run_directory import read_config
from rmgl_jax.training.run_info import read_run_info
from rmgl_jax.training.scores import list_steps

RESULT_NAME = "result.json"

Records = Sequence[Mapping[str, Any]]
"""Records of `metrics.jsonl`, oldest first."""


@dataclass(frozen=True, eq=False)
class RunFiles:
    """The files of a run, as far as it has written them."""

    config: ExperimentConfig
    """Configuration of the run."""
    records: Records
    """Metrics of training steps and evaluations."""
    result: EvaluationResult | None
    """Result of the finished run."""
    info: Mapping[str, str | None]
    """Command, commit, device and versions, as far as recorded."""
    has_checkpoint: bool
    """A checkpoint can be loaded."""
    log_damage: str | None = None
    """Sentence about records that the log lacks."""

    @property
    def is_rendered(self) -> bool:
        """The dataset is rendered, so that its images show no real people."""
        return self.config.dataset.partition("/")[0] == "synthetic"


def read_run(workdir: Path) -> RunFiles:
    """Reads the files of a run, finished or not.

    Raises:
        FileNotFoundError: `workdir` is not a run directory, or nothing is recorded yet.
        ValueError: a file is damaged.
    """
    config = read_config(workdir)
    # Listed before the log is read: a run that goes on logs a step and then saves it.
    steps = list_steps(workdir / "checkpoints")
    records = read_metrics(workdir)
    path = workdir / RESULT_NAME
    try:
        result = EvaluationResult.from_json(path.read_text()) if path.exists() else None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error
    if not records and result is None:
        raise MissingFileError(
            f"{workdir} has nothing to report yet: neither {LOG_NAME} nor {RESULT_NAME}."
        )
    if result is not None and result.step is not None:
        steps.append(int(result.step))
    return RunFiles(
        config=config,
        records=records,
        result=result,
        info=read_run_info(workdir),
        has_checkpoint=bool(list_steps(workdir / "checkpoints")),
        log_damage=missing_records(records, max(steps, default=0)),
    )


def series(records: Records, kind: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns steps and values of one quantity, from the records of a kind that have it.

    Args:
        records: records of the run.
        kind: "train" or "eval".
        name: name of the quantity.
    """
    pairs = [(r["step"], float(r[name])) for r in records if r["kind"] == kind and name in r]
    steps, values = np.array(pairs, float).reshape(-1, 2).T
    return steps, values
