"""Decodes a split once into a store file, which training and evaluation read."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from data_prep import Record, read_records
from data_prep.errors import InputError, WriteError
from data_prep.files import cache_directory, expand, locked, replacing
from data_prep.progress import note
from data_prep.workers import map_chunks
from rmgl_jax.data.images import DECODING, decode
from rmgl_jax.data.pixels import checksum
from rmgl_jax.data.split import Label, Split, append_index, open_split

__all__ = ["Split", "decode_split", "open_split"]


def decode_split(
    builder: tfds.core.DatasetBuilder,
    split: str,
    size: tuple[int, int],
    store_dir: str | PathLike[str] | None = None,
    processes: int | None = None,
) -> Split:
    """Opens the store of a decoded split, and makes it first if there is none.

    A store that is damaged, was decoded from other data or has no checksums of its pixels (older
    versions) is reported and replaced. Damaged pixels are found when they are read. If several
    processes need the same store, one of them makes it and the others wait. Where the dataset's own
    directory cannot be written, the store is made in the user's cache directory.

    Args:
        builder: Builder of a prepared dataset; see `data_prep`.
        split: "train", "query" or "gallery".
        size: Height and width of the decoded images, in pixels.
        store_dir: Directory of the stores; None is `decoded` in the dataset's own directory.
        processes: Number of processes that decode; None is one for each processor, or this process
            alone for few images.

    Raises:
        KeyError: If the dataset has no such split.
        InputError: If the split is empty, images cannot be decoded (the message names all of them),
            labels cannot be stored, or the size is not positive.
        WriteError: If the store's directory cannot be written.
        OSError: If writing fails later, as on a full disk; the incomplete store is removed.
    """
    if min(size) < 1:
        raise InputError(f"size must be a positive height and width, got {size}.")
    source = Path(builder.data_dir)
    directory = expand(store_dir) if store_dir else source / "decoded"
    key = _key(builder, split, size)
    name = "-".join([*key["dataset"].split("/"), key["version"], split, f"{size[0]}x{size[1]}"])
    path = directory / f"{name}.pixels"
    try:
        return _open_or_write(path, key, builder, processes)
    except WriteError:
        if store_dir:
            raise
        # Copies of one dataset share a store there if their files are as old.
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        cached = cache_directory() / "decoded" / f"{name}-{digest}.pixels"
        if not cached.exists():
            note(f"{directory} cannot be written: decoding to {cached}.")
        return _open_or_write(cached, key, builder, processes)


def _open_or_write(
    path: Path, key: dict[str, Any], builder: tfds.core.DatasetBuilder, processes: int | None
) -> Split:
    with suppress(OSError, ValueError):
        return open_split(path, key)
    hint = "Give a store_dir that can be written."
    with locked(path.with_name(f".{path.stem}.lock"), hint):
        # Another process may have made it while this one waited.
        try:
            return open_split(path, key)
        except FileNotFoundError:
            pass
        except ValueError as problem:
            note(f"{problem} Decoding it again.")
        # The holder of the lock is the only writer, so these are from runs that were killed.
        for leftover in path.parent.glob(f".{path.name}.*.partial"):
            leftover.unlink()
        with replacing(path) as temporary:
            _write(temporary, key, builder, processes)
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
        # A dataset that was prepared again under the same version has other files or newer ones.
        "source": sorted([f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files),
    }


def _write(
    path: Path, key: dict[str, Any], builder: tfds.core.DatasetBuilder, processes: int | None
) -> None:
    dataset, split = key["dataset"], key["split"]
    records = read_records(builder, split)
    if not len(records):
        raise InputError(f"{dataset} has no images in its split {split!r}.")
    path.touch()
    work = partial(_decode_rows, records, tuple(key["size"]), path)
    labels: list[Label] = []
    checksums: list[int] = []
    problems: list[str] = []
    description = f"{dataset}: decoding {split}"
    for chunk in map_chunks(work, range(len(records)), description, processes):
        labels += chunk[0]
        checksums += chunk[1]
        problems += chunk[2]
    if problems:
        raise InputError(
            f"{len(problems)} images of {dataset}'s split {split!r} cannot be decoded:\n"
            + "\n".join(problems)
        )
    append_index(path, key, labels, checksums)


def _decode_rows(
    records: Sequence[Record], size: tuple[int, int], path: Path, rows: Sequence[int]
) -> tuple[list[Label], list[int], list[str]]:
    """Writes the pixels of consecutive rows; returns labels and checksums, and the errors."""
    labels, checksums, problems = [], [], []
    # A memory map would end the process by a signal on a full disk; a write raises an error.
    with open(path, "r+b") as file:
        file.seek(rows[0] * size[0] * size[1] * 3)
        for row in rows:
            record = records[row]
            digest = hashlib.sha256(record["image_bytes"]).hexdigest()
            label = Label(record["pid"], record["camid"], record["name"], digest)
            labels.append(label)
            try:
                pixels = decode(record["image_bytes"], size)
            # Decoders raise many types on a damaged file: struct.error, SyntaxError, IndexError ...
            except Exception as error:
                problems.append(f"{label.name}: {type(error).__name__}: {error}")
                continue
            file.write(pixels.tobytes())
            checksums.append(checksum(pixels.tobytes()))
    return labels, checksums, problems
