"""CSV files of crops: images, boxes in them, and what is known about each."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.gallery.crops import Crop, named_crop, whole_edges
from rmgl_jax.gallery.times import parse_time

COLUMNS = (
    *("path", "left", "top", "right", "bottom"),
    *("pid", "camera", "camid", "time", "labels"),
)
"""Columns of a CSV file; only `path` is required, and `camid` is another name of `camera`."""
_BOX = COLUMNS[1:5]


def read_crop_list(path: Path, missing_ok: bool) -> Iterator[Crop]:
    """Reads the crops of a CSV file; see `find_crops` for its columns and errors."""
    number = 0
    try:
        # The mark at the start of files of spreadsheet programs is no part of the first name.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_columns(path, reader.fieldnames or ())
            for row in reader:
                number += 1
                where = f"{path}, line {reader.line_num}"
                crop = _crop_of(path.parent, row, where)
                if not missing_ok and not crop.path.is_file():
                    raise MissingFileError(f"{where}: there is no image {crop.path}.")
                yield crop
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file in UTF-8: {error}.") from error
    if not number:
        raise InputError(f"{path} has no crops below its line of column names.")


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    columns = list(columns)
    problems = [f"{name} is unknown" for name in columns if name not in COLUMNS]
    problems += [f"{name} is there twice" for name in {*columns} if columns.count(name) > 1]
    if "path" not in columns:
        problems.append("path is missing")
    if 0 < len({*_BOX} & {*columns}) < len(_BOX):
        problems += [f"{name} is missing" for name in _BOX if name not in columns]
    if {"camera", "camid"} <= {*columns}:
        problems.append("camera and camid are the same")
    if problems:
        raise InputError(
            f"{path}, line 1: of the columns, {'; '.join(problems)}. Columns are "
            f"{', '.join(COLUMNS)}, and only path is required."
        )


def _crop_of(directory: Path, row: Mapping[str | None, object], where: str) -> Crop:
    """Makes the crop of a line of a CSV file; an absent or empty field is unknown."""
    if None in row or None in row.values():
        raise InputError(f"{where} does not have as many fields as the line of column names.")
    fields = {str(name): str(text).strip() for name, text in row.items()}
    if not fields["path"]:
        raise InputError(f"{where} has no path.")
    path = directory / os.path.expanduser(fields["path"])
    named = named_crop(path)
    pid = fields.get("pid", "")
    try:
        return Crop(
            path,
            box=_box([fields.get(name, "") for name in _BOX]),
            pid=int(pid) if pid else named.pid,
            camera=fields.get("camera") or fields.get("camid") or named.camera,
            time=parse_time(fields.get("time", "")),
            labels=tuple(filter(None, map(str.strip, fields.get("labels", "").split(";")))),
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (ValueError, OverflowError) as error:
        raise InputError(f"{where}: {error}.") from error


def _box(edges: list[str]) -> tuple[int, int, int, int] | None:
    """Parses a box of a CSV file; None if all edges are empty."""
    if not any(edges):
        return None
    left, top, right, bottom = box = whole_edges(edges)
    if left >= right or top >= bottom:
        raise ValueError(f"the box {list(box)} (left, top, right, bottom) is empty")
    return box
