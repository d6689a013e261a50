"""Results of a search as the page shows them, as text and as JSON."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from rmgl_jax.gallery.entries import Entry, Match
from rmgl_jax.gallery.uploads import Upload


@dataclass(frozen=True)
class Query:
    """The query of a page of results, as the page shows it."""

    picture: str
    """Address of the picture; empty if its file is missing."""
    camera: str = ""
    entry: Entry | None = None
    note: str = ""


@dataclass(frozen=True)
class Result:
    """A match as a page shows it."""

    rank: int
    entry: Entry
    score: float
    is_same: bool | None
    """The score is above the threshold; None without a threshold."""
    has_file: bool


def make_result(rank: int, match: Match, threshold: float | None) -> Result:
    """Describes a match; with a threshold also whether it is called the same person."""
    is_same = None if threshold is None else match.score > threshold
    return Result(rank, match.entry, match.score, is_same, os.path.isfile(match.entry.path))


def query_of(upload: Upload) -> Query:
    """Describes an upload as a query."""
    picture = "data:image/jpeg;base64," + base64.b64encode(upload.preview).decode()
    return Query(picture, note=upload.note)


def split_results(results: Sequence[Result]) -> list[tuple[bool | None, list[Result]]]:
    """Splits results where the threshold divides them, if the scores fall, else not at all."""
    scores = [result.score for result in results]
    if not results or results[0].is_same is None or scores != sorted(scores, reverse=True):
        return [(None, list(results))]
    same = [result for result in results if result.is_same]
    return [(True, same), (False, list(results[len(same) :]))]


def result_to_json(result: Result) -> dict[str, Any]:
    """Converts a result to an object of the JSON answer, without the path of its file."""
    entry = result.entry
    return {
        "id": entry.id,
        "score": result.score,
        "same_person": result.is_same,
        "camera": entry.camera,
        "time": entry.time,
        "labels": list(entry.labels),
        "box": entry.box,
        "image": f"/image/{quote(entry.id)}",
    }


def time_text(time: float) -> str:
    """A time for people, in UTC."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time} s since 1970"


def about(entry: Entry) -> str:
    """All that is known about an entry, for those who do not see its picture."""
    known = [f"camera {entry.camera}"] if entry.camera else []
    known += [time_text(entry.time)] if entry.time is not None else []
    return ", ".join([*known, *entry.labels]) or "nothing known about it"
