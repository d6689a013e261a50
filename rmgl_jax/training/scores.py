"""Scores of a run's checkpoints: the mAP of every evaluated step, in `checkpoints/scores.json`.

The scores decide which checkpoint is the best, so the file has a digest, and a lost score is an
error instead of another choice. Earlier versions kept each score in the directory
of its checkpoint; those scores are read as well.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.errors import InputError
from data_prep.files import write_text
from data_prep.json_text import parse_json
from rmgl_jax.checked_json import json_digest

logger = logging.getLogger(__name__)

SCORES_NAME = "scores.json"
_METADATA_NAME = "_CHECKPOINT_METADATA"
_EARLIER_ITEM = "metrics"

Scores = Mapping[int, float | None]
"""The mAP of each evaluated step; None where a checkpoint was evaluated and its score is lost."""


def read_scores(directory: Path) -> dict[int, float | None]:
    """Reads the scores of a directory of checkpoints.

    Raises:
        InputError: the file is damaged, or missing although this version wrote the checkpoints.
    """
    path = directory / SCORES_NAME
    if not path.exists():
        return _earlier_scores(directory)
    try:
        tree = parse_json(path.read_text())
        scores = tree["mean_ap"]
        if tree["digest"] != json_digest(scores):
            raise ValueError("its digest does not match")
        return {int(step): score for step, score in scores.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}.") from error


def write_scores(directory: Path, scores: Scores) -> None:
    """Writes the scores completely or not at all."""
    tree = {str(step): scores[step] for step in sorted(scores)}
    content = {"mean_ap": tree, "digest": json_digest(tree)}
    write_text(directory / SCORES_NAME, json.dumps(content, indent=1) + "\n")


def record_score(directory: Path, step: int, mean_ap: float) -> None:
    """Adds the score of a step, or replaces it."""
    write_scores(directory, read_scores(directory) | {step: mean_ap})


def repair_scores(directory: Path) -> None:
    """Makes the file readable before a run goes on; lost scores are recorded as lost."""
    try:
        scores = read_scores(directory)
    except InputError as error:
        logger.warning("%s The scores of the checkpoints are lost; all of them are kept.", error)
        scores = dict.fromkeys(list_steps(directory), None)
        (directory / SCORES_NAME).unlink(missing_ok=True)
    if not (directory / SCORES_NAME).exists():
        write_scores(directory, scores)
    # Orbax reads the earlier files when it opens the directory, and fails if one is damaged.
    for item in directory.glob(f"*/{_EARLIER_ITEM}"):
        if _read_earlier(item) is None:
            logger.warning("The score of the checkpoint %s is damaged.", item.parent)
            shutil.rmtree(item, ignore_errors=True)  # Other processes may remove it too.


def best_step(scores: Scores, steps: Iterable[int]) -> int | None:
    """Returns the step of the greatest score, the later of equal ones; None if none was evaluated.

    Args:
        scores: see `read_scores`.
        steps: steps of the checkpoints to choose from.

    Raises:
        InputError: the score of one of them is lost.
    """
    evaluated = {step: scores[step] for step in steps if step in scores}
    known = {step: score for step, score in evaluated.items() if score is not None}
    lost = sorted(evaluated.keys() - known.keys())
    if lost:
        raise InputError(
            f"The mAP of the checkpoints of steps {lost} is lost, so that the best one is not "
            "known; name a step instead."
        )
    return max(known, key=lambda step: (known[step], step)) if known else None


@dataclass(frozen=True)
class PreserveBest:
    """Preservation policy of Orbax: the best checkpoint, and those whose score is lost."""

    directory: Path

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Returns True for each checkpoint that must stay."""
        scores = read_scores(self.directory)
        steps = [info.step for info in checkpoints]
        lost = {step for step in steps if scores.get(step, 0.0) is None}
        kept = lost | {best_step(scores, set(steps) - lost)}
        return [step in kept for step in steps]


def list_steps(directory: Path) -> list[int]:
    """Lists the steps whose checkpoints are there now, in order."""
    return sorted(int(path.name) for path in directory.glob("[0-9]*") if path.name.isdigit())


def read_metadata(directory: Path, step: int) -> dict[str, Any]:
    """Reads what Orbax recorded with a checkpoint; empty if that is damaged or missing."""
    try:
        tree = parse_json((directory / str(step) / _METADATA_NAME).read_text())
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def custom_metadata(directory: Path, step: int) -> dict[str, Any]:
    """Reads what this project recorded with a checkpoint; empty if that is damaged or missing."""
    found = read_metadata(directory, step).get("custom_metadata")
    return found if isinstance(found, dict) else {}


def _earlier_scores(directory: Path) -> dict[int, float | None]:
    """Reads the scores that earlier versions kept in the directories of the checkpoints."""
    scores: dict[int, float | None] = {}
    for step in list_steps(directory):
        if "scores" in custom_metadata(directory, step):
            raise InputError(f"{directory / SCORES_NAME} is missing.")
        item = directory / str(step) / _EARLIER_ITEM
        handlers = read_metadata(directory, step).get("item_handlers") or {}
        if item.exists() or _EARLIER_ITEM in handlers:
            scores[step] = _read_earlier(item)
    return scores


def _read_earlier(item: Path) -> float | None:
    try:
        return float(parse_json((item / _EARLIER_ITEM).read_text())["mean_ap"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
