"""Person crops on disk: image files, and boxes in images, with camera, time and labels if known."""

import csv
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from numbers import Integral, Real
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from data_prep.errors import InputError, MissingFileError
from data_prep.images import decode_upright, open_image, read_encoded
from data_prep.names import parse_market_name
from rmgl_jax.gallery.entries import check_several

COLUMNS = (
    *("path", "left", "top", "right", "bottom"),
    *("pid", "camera", "camid", "time", "labels"),
)
"""Columns of a CSV file; only `path` is required, and `camid` is another name of `camera`."""
_BOX = COLUMNS[1:5]
_DATE = re.compile(r"\d{8}")  # ISO 8601 without hyphens
_SECONDS = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
# Years, months, and dates with a time, which are not ISO 8601; seconds of 12 digits are after 5138.
_LIKE_DATE = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])?|\d{12}|\d{14}", re.ASCII)
_BOX_END = 2**31  # files of embeddings have 32 bits for an edge
_PID_END = 2**63
_FIRST, _END = -62_135_596_800, 253_402_300_800  # seconds of the years 1 and 10000
# EPS starts another program; the others are stubs without a decoder, or need another system.
_NOT_READ = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}


@dataclass(frozen=True)
class Crop:
    """An image file, or a box in it, with what is known about it."""

    path: Path
    """The image file."""
    box: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom in whole pixels of the upright image; None is all of it."""
    pid: int | None = None
    """Identity; None is unknown."""
    camera: str = ""
    """Camera; "" is unknown. The camera id of a dataset as its decimal digits."""
    time: float | None = None
    """Seconds since 1970-01-01 UTC; None is unknown."""
    labels: tuple[str, ...] = ()
    """Words to search for."""

    def __post_init__(self) -> None:
        """Checks all fields, and converts them to their types; a box is rounded to whole pixels.

        Raises:
            InputError: names the value that cannot be stored.
        """
        object.__setattr__(self, "path", Path(self.path))
        if self.box is not None:
            object.__setattr__(self, "box", _whole_edges(self.box))
        if self.pid is not None:
            if not (isinstance(self.pid, Integral) and -_PID_END <= self.pid < _PID_END):
                raise InputError(f"A pid must be a whole number of 64 bits, got {self.pid!r}.")
            object.__setattr__(self, "pid", int(self.pid))
        if not isinstance(self.camera, str):
            raise InputError(f"A camera must be text, got {self.camera!r}.")
        if self.time is not None:
            _check_time(self.time)
            object.__setattr__(self, "time", float(self.time))
        check_several("labels", self.labels)
        object.__setattr__(self, "labels", tuple(self.labels))

    def __str__(self) -> str:
        return str(self.path) if self.box is None else f"{self.path} {list(self.box)}"


def find_crops(
    sources: Iterable[str | os.PathLike[str]], *, missing_ok: bool = False
) -> Iterator[Crop]:
    """Finds the crops in files, directories, globs and CSV files, one after the other.

    Directories are searched at any depth for all formats that Pillow reads, in the order of their
    paths; links to directories are followed once, and hidden files are left out. A glob (`*`, `?`,
    `[...]`, and `**` for any depth) takes the image files and CSV files that match. Names such as
    `0002_c1s1_000451_03.jpg` (Market-1501) or `0001_c2_f0046182.jpg` (DukeMTMC-reID) give identity
    and camera, as numbered in the name.

    A CSV file has a line of column names, then one crop a line. Columns, of which only `path` is
    required: `path`, relative to the directory of the CSV file; `left`, `top`, `right`, `bottom`, a
    box in the image; `pid`; `camera` or `camid`; `time`, ISO 8601 (UTC unless it says otherwise) or
    seconds since 1970; `labels`, separated by semicolons. An empty field is unknown.

    Args:
        sources: paths and globs.
        missing_ok: Also give the crops of CSV files whose image is not there. Whoever reads them
            reports it, or leaves them out (`skip_bad`).

    Raises:
        MissingFileError: a file is not there, or a directory or glob has no images.
        InputError: a CSV file has other content; names its line.
    """
    for source in sources:
        yield from _find(os.path.expanduser(os.fspath(source)), missing_ok)


def read_crop(crop: Crop) -> Image.Image:
    """Reads the pixels of a crop: upright by its EXIF tag, cut to its box.

    The part of the box that lies outside the image is left out, as detectors give such boxes.

    Raises:
        MissingFileError: the file does not exist.
        InputError: the file is not an image that Pillow reads, is damaged, has more than
            `PIL.Image.MAX_IMAGE_PIXELS` pixels, or the box lies outside it.
    """
    return cut(read_image(crop.path), crop)


def read_image(path: Path) -> Image.Image:
    """Reads an image file as `decode_upright` does; raises as `read_crop` does."""
    try:
        with open_image(read_encoded(path), formats()) as image:
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise InputError(
                    f"{path} has {image.width} x {image.height} pixels, more than {limit:,}."
                )
            return decode_upright(image)
    except (InputError, MissingFileError):
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not an image: it is of none of the {len(formats())} formats that are read "
            "(JPEG, PNG, WebP, TIFF ...)."
        ) from error
    # A decoder fed with noise may raise anything: struct.error, SyntaxError, IndexError ...
    except Exception as error:
        raise InputError(f"{path} is not a readable image: {error}.") from error


def cut(image: Image.Image, crop: Crop) -> Image.Image:
    """Cuts an upright image to the box of a crop.

    Raises:
        InputError: the box lies outside the image.
    """
    if crop.box is None:
        return image
    left, top, right, bottom = crop.box
    inside = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise InputError(
            f"{crop.path} is {image.width} x {image.height} pixels, of which the box "
            f"{list(crop.box)} (left, top, right, bottom) has none."
        )
    return image.crop(inside)


def shape_note(name: str, image: Image.Image) -> str | None:
    """Says that an image does not have the shape of a person crop; None if it does."""
    if image.width <= image.height:
        return None
    return (
        f"{name} is {image.width} x {image.height} pixels, wider than high: person crops are "
        "usually higher than wide."
    )


@cache
def formats() -> tuple[str, ...]:
    """Names of the image formats that are read."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - _NOT_READ))


@cache
def _suffixes() -> frozenset[str]:
    readable = set(formats())
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in readable
    )


def _is_image(name: str) -> bool:
    # macOS leaves `._a.jpg` next to every `a.jpg` it copies.
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in _suffixes()


def _is_csv(name: str) -> bool:
    return name.lower().endswith(".csv")


def _find(source: str, missing_ok: bool) -> Iterator[Crop]:
    if os.path.isdir(source):
        found = False
        for path in _walk(source, set()):
            found = True
            yield _named(path)
        if not found:
            raise MissingFileError(f"{source} has no image files at any depth.")
    elif os.path.exists(source):
        yield from _read_csv(Path(source), missing_ok) if _is_csv(source) else [_named(source)]
    elif glob.has_magic(source):
        matches = sorted(filter(_is_file_or_link, glob.iglob(source, recursive=True)), key=Path)
        chosen = [path for path in matches if _is_csv(path) or _is_image(os.path.basename(path))]
        if not chosen:
            raise MissingFileError(
                f"No image file and no CSV file matches {source}; ** stands for any depth."
            )
        for path in chosen:
            yield from _find(path, missing_ok) if _is_csv(path) else [_named(path)]
    else:
        raise MissingFileError(f"There is no image {source}.")


def _is_file_or_link(path: str) -> bool:
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.isdir(path))


def _walk(directory: str, visited: set[str]) -> Iterator[str]:
    """Yields the image files of a directory at any depth, in the order of their paths.

    Links to directories are followed, but no directory is searched twice.

    Args:
        directory: the directory.
        visited: resolved paths of the directories searched so far, which this one joins.
    """
    visited.add(os.path.realpath(directory))

    def is_directory(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a link to itself
            return False

    def is_image(entry: os.DirEntry[str]) -> bool:
        # A link that leads nowhere, or to itself, is reported when it is read.
        return _is_image(entry.name) and (entry.is_symlink() or entry.is_file())

    try:
        with os.scandir(directory) as entries:
            found = [(entry.name, is_directory(entry), is_image(entry)) for entry in entries]
    except FileNotFoundError:  # It was removed meanwhile.
        return
    for name, descends, is_chosen in sorted(found):
        path = os.path.join(directory, name)
        if not descends:
            if is_chosen:
                yield path
        elif os.path.realpath(path) not in visited:
            yield from _walk(path, visited)


def _named(path: str | Path) -> Crop:
    """Makes the crop of a whole file, with identity and camera if its name has them."""
    path = Path(path)
    label = parse_market_name(path.name)
    # More digits than a pid can have are something else, such as a time.
    if label is None or abs(label.pid) >= _PID_END:
        return Crop(path)
    return Crop(path, pid=label.pid, camera=str(label.camera))


def _read_csv(path: Path, missing_ok: bool) -> Iterator[Crop]:
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
    named = _named(path)
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


def _whole_edges(edges: Iterable[float | str]) -> tuple[int, int, int, int]:
    """Rounds the four edges of a box, numbers or texts of numbers, to whole pixels."""
    try:
        left, top, right, bottom = (round(float(edge)) for edge in edges)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"A box has four numbers (left, top, right, bottom), got {edges}."
        ) from error
    box = (left, top, right, bottom)
    if not all(-_BOX_END <= edge < _BOX_END for edge in box):
        raise InputError(
            f"The edges of a box must be from -{_BOX_END:,} to {_BOX_END:,}, got {list(box)}."
        )
    return box


def _box(edges: list[str]) -> tuple[int, int, int, int] | None:
    """Parses a box of a CSV file; None if all edges are empty."""
    if not any(edges):
        return None
    left, top, right, bottom = box = _whole_edges(edges)
    if left >= right or top >= bottom:
        raise ValueError(f"the box {list(box)} (left, top, right, bottom) is empty")
    return box


def parse_time(text: str) -> float | None:
    """Parses a time: seconds since 1970, or ISO 8601, which is UTC unless it has an offset.

    Eight digits are a date, such as 20260501.

    Raises:
        InputError: the text looks like another date in digits, or the year is not one of 1 to 9999.
        ValueError: the text is no time.
    """
    if not text:
        return None
    if _LIKE_DATE.fullmatch(text):
        raise InputError(f"{text} looks like a date; write a time as 2026-05-01T08:00.")
    if _SECONDS.fullmatch(text) and not _DATE.fullmatch(text):
        seconds = float(text)
        _check_time(seconds)
        return seconds
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _check_time(seconds: float) -> None:
    if not isinstance(seconds, Real):
        raise InputError(
            f"A time must be in seconds since 1970 (`timestamp()` of a datetime), got {seconds!r}."
        )
    if not _FIRST <= seconds < _END:
        raise InputError(
            f"A time must be in the years 1 to 9999, got {seconds:.16g} seconds since 1970 "
            "(milliseconds are to be divided by 1,000)."
        )
