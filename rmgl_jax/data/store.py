"""Decoding a split, once, into a store file that training and evaluation read."""

import fcntl
import multiprocessing
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_prep import open_prepared, read_records
from data_prep.progress import note, track
from rmgl_jax.data.images import DECODING, decode
from rmgl_jax.data.split import Label, Split, append_index, open_split

__all__ = ["Split", "open_split", "prepare"]

_CHUNK = 128
# Starting processes costs about as much as decoding this many images.
_FEW = 1024


def prepare(
    builder: tfds.core.DatasetBuilder,
    split: str,
    size: tuple[int, int],
    store_dir: str | PathLike[str] | None = None,
    processes: int | None = None,
) -> Split:
    """Opens the decoded split, decoding it first if that was not done before.

    A store that is damaged, or was decoded from other data, is said to be so and made anew. Of
    several processes that want the same one, the first makes it and the others wait.

    Args:
        builder: Of a prepared data set; see `data_prep`.
        split: "train", "query" or "gallery".
        size: Height and width that images are resized to.
        store_dir: Where decoded splits are kept; None is `decoded` in the data set's own directory.
        processes: How many decode side by side; None is one for each core.

    Raises:
        KeyError: If the data set has no such split.
        ValueError: If images cannot be decoded (all are named), or the size is not positive.
        OSError: If the store cannot be written; nothing of it is left.
    """
    if min(size) < 1:
        raise ValueError(f"size must be a positive height and width, got {size}.")
    source = Path(builder.data_dir)
    directory = Path(store_dir) if store_dir else source / "decoded"
    key = _key(builder, split, size)
    name = "-".join([*key["dataset"].split("/"), key["version"], split, f"{size[0]}x{size[1]}"])
    path = directory / f"{name}.pixels"
    with suppress(OSError, ValueError):
        return open_split(path, key)
    with _lock(directory / f".{name}.lock"):
        # Another process may have made it while this one waited.
        try:
            return open_split(path, key)
        except FileNotFoundError:
            pass
        except ValueError as problem:
            note(f"{problem} Decoding it again.")
        _write(path, key, builder, processes)
    return open_split(path, key)


def _key(builder: tfds.core.DatasetBuilder, split: str, size: tuple[int, int]) -> dict[str, Any]:
    """Everything that the content of a store depends on."""
    config = getattr(builder.builder_config, "name", None)
    files = (file for file in Path(builder.data_dir).iterdir() if file.is_file())
    return {
        "dataset": f"{builder.name}/{config}" if config else builder.name,
        "version": str(builder.version),
        "split": split,
        "size": list(size),
        "decoding": DECODING,
        # A set prepared anew under the same version has other files, or later ones.
        "source": sorted([f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files),
    }


def _write(
    path: Path, key: dict[str, Any], builder: tfds.core.DatasetBuilder, processes: int | None
) -> None:
    """Decodes a split into a store file, complete or not at all."""
    split, size = key["split"], tuple(key["size"])
    records = read_records(builder, split)
    if not len(records):
        raise ValueError(f"{key['dataset']} has no images in its split {split!r}.")
    rows = [range(len(records))[i : i + _CHUNK] for i in range(0, len(records), _CHUNK)]
    processes = processes or _cores()
    # Whoever holds the lock is the only writer: what is there was left by a run that was killed.
    for leftover in path.parent.glob(f".{path.name}.*.partial"):
        leftover.unlink()
    # A name of its own, as workers of that run may still be writing to theirs.
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial_path.touch()
        if processes == 1 or len(records) < _FEW:
            chunks = map(partial(_decode_rows, records, size, partial_path), rows)
            labels, problems = _collect(chunks, rows, f"{key['dataset']}: decoding {split}")
        else:
            # Not fork: the caller may run threads (JAX does), and a forked copy of those can hang.
            context = multiprocessing.get_context("forkserver")
            work = partial(_decode_in_worker, str(builder.data_dir), split, size, partial_path)
            with ProcessPoolExecutor(processes, mp_context=context) as pool:
                try:
                    chunks = pool.map(work, rows)
                    labels, problems = _collect(chunks, rows, f"{key['dataset']}: decoding {split}")
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
        if problems:
            raise ValueError(
                f"{len(problems)} images of {key['dataset']}'s split {split!r} cannot be decoded:\n"
                + "\n".join(problems)
            )
        append_index(partial_path, key, labels)
        os.replace(partial_path, path)
    except BaseException:
        partial_path.unlink(missing_ok=True)
        raise


def _collect(
    chunks: Iterable[tuple[list[Label], list[str]]], rows: Sequence[range], description: str
) -> tuple[list[Label], list[str]]:
    labels: list[Label] = []
    problems: list[str] = []
    for some_labels, some_problems in track(chunks, [len(chunk) for chunk in rows], description):
        labels += some_labels
        problems += some_problems
    return labels, problems


def _decode_in_worker(
    directory: str, split: str, size: tuple[int, int], path: Path, rows: range
) -> tuple[list[Label], list[str]]:
    return _decode_rows(read_records(open_prepared(directory), split), size, path, rows)


def _decode_rows(
    records: Sequence[dict[str, Any]], size: tuple[int, int], path: Path, rows: range
) -> tuple[list[Label], list[str]]:
    """Writes the pixels of some rows to their place; the rows' labels and what went wrong."""
    labels, problems = [], []
    # Written, not mapped: a full disk is then an error and not a signal that kills the process.
    with open(path, "r+b") as file:
        file.seek(rows.start * size[0] * size[1] * 3)
        for row in rows:
            record = records[row]
            label = Label(record["pid"], record["camid"], record["name"])
            labels.append(label)
            try:
                pixels = decode(record["image_bytes"], size)
            # A decoder fed with noise may raise anything: struct.error, SyntaxError, IndexError ...
            except Exception as error:
                problems.append(f"{label.name}: {type(error).__name__}: {error}")
                continue
            file.write(pixels.tobytes())
    return labels, problems


def _cores() -> int:
    # Not everywhere: macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds a file's lock; a process that dies lets go of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise OSError(
            f"Decoded images cannot be kept in {path.parent} ({error.strerror}); give a store_dir "
            "that can be written."
        ) from error
    with open(path, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
