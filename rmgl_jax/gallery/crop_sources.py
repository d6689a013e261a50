"""Finds crops in files, directories, globs and CSV files."""

import glob
import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from data_prep.errors import MissingFileError
from rmgl_jax.gallery.crop_lists import read_crop_list
from rmgl_jax.gallery.crops import Crop, formats, named_crop


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
            yield named_crop(path)
        if not found:
            raise MissingFileError(f"{source} has no image files at any depth.")
    elif os.path.exists(source):
        yield from (
            read_crop_list(Path(source), missing_ok) if _is_csv(source) else [named_crop(source)]
        )
    elif glob.has_magic(source):
        matches = sorted(filter(_is_file_or_link, glob.iglob(source, recursive=True)), key=Path)
        chosen = [path for path in matches if _is_csv(path) or _is_image(os.path.basename(path))]
        if not chosen:
            raise MissingFileError(
                f"No image file and no CSV file matches {source}; ** stands for any depth."
            )
        for path in chosen:
            yield from _find(path, missing_ok) if _is_csv(path) else [named_crop(path)]
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
