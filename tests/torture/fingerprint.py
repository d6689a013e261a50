"""Digests of files by what they mean: times, speeds and commands of a run are left out."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tests.torture import processes

_SPEEDS = ("images_per_second", "mfu", "crc32")  # The checksum includes the speeds.
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
LEFTOVER = re.compile(r"\.partial|incomplete|orbax-checkpoint-tmp|\.tmp", re.IGNORECASE)
"""Names of files that an interrupted command may leave and the next one should remove."""


def fingerprint(directory: Path, names: Iterable[str]) -> dict[str, str]:
    """Digest of each file below some names of a directory, by its relative path.

    Lock files and TensorBoard's events are left out, and a checkpoint is one entry. Reading
    happens in a process of its own, because TensorStore starts threads.

    Raises:
        RuntimeError: the files cannot be read.
    """
    answer = directory.with_name(f".{directory.name}.fingerprint")
    ended = processes.run(_write_fingerprint, (tuple(names), answer), directory)
    if ended.status != 0:
        raise RuntimeError(f"The files in {directory} cannot be compared:\n{ended.output}")
    found: dict[str, str] = json.loads(answer.read_text())
    answer.unlink()
    return found


def _write_fingerprint(names: tuple[str, ...], answer: Path) -> None:
    answer.write_text(json.dumps(_fingerprint(Path.cwd(), names)))


def _fingerprint(directory: Path, names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        path = directory / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            relative = file.relative_to(directory)
            if "checkpoints" in relative.parts[:-1]:
                step = relative.parts[relative.parts.index("checkpoints") + 1]
                place = directory.joinpath(*relative.parts[: relative.parts.index(step) + 1])
                key = str(place.relative_to(directory))
                if key not in found:
                    found[key] = _checkpoint(place)
            elif file.is_file() and not _ignored(relative):
                found[str(relative)] = _digest(file)
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> tuple[list[str], list[str]]:
    """Names that are missing or differ, and names that only `found` has."""
    changed = [name for name in expected if found.get(name) != expected[name]]
    return changed, [name for name in found if name not in expected]


def _ignored(path: Path) -> bool:
    # The files of a gallery are those of its database.
    return path.name.endswith(".lock") or "tensorboard" in path.parts or path.parts[0] == "gallery"


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(_content(path)).hexdigest()[:16]
    except Exception as error:  # A damaged file is different from every whole one.
        return f"damaged: {type(error).__name__}"


def _content(path: Path) -> bytes:
    if path.name == "metrics.jsonl":
        records = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [{k: v for k, v in record.items() if k not in _SPEEDS} for record in records]
        return json.dumps(kept).encode()
    if path.name == "run.json":
        return b"the command and the versions"
    if path.suffix == ".html":
        return _TIME.sub("", path.read_text()).encode()
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))
    if "array_record" in path.name:
        return _records(path)
    if path.suffix == ".json":
        return json.dumps(json.loads(path.read_text()), sort_keys=True).encode()
    if path.suffix == ".pixels":
        from rmgl_jax.data.store import open_split

        split = open_split(path)
        labels = [split.pids.tolist(), list(split.names)]
        return split.batch(np.arange(len(split))).tobytes() + json.dumps(labels).encode()
    return path.read_bytes()


def _records(path: Path) -> bytes:
    """The records of a split, whose encoding differs from process to process."""
    from data_prep import open_prepared, read_records

    split = path.name.partition(".")[0].rpartition("-")[2]
    digest = hashlib.sha256()
    for record in read_records(open_prepared(path.parent), split):
        labels = f"{record['name']} {record['pid']} {record['camid']}"
        digest.update(labels.encode() + record["image_bytes"])
    return digest.digest()


def _checkpoint(directory: Path) -> str:
    """Digest of the arrays of a checkpoint, read by TensorStore; of its score too."""
    import tensorstore

    try:
        digest = hashlib.sha256()
        store = {"driver": "ocdbt", "base": f"file://{(directory / 'default').absolute()}/"}
        keys = [key.decode() for key in tensorstore.KvStore.open(store).result().list().result()]
        for name in sorted(key.removesuffix("/.zarray") for key in keys if key.endswith(".zarray")):
            spec = {"driver": "zarr", "kvstore": {**store, "path": name}}
            array = tensorstore.open(spec, read=True).result().read().result()
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
        score = directory / "metrics/metrics"
        digest.update(score.read_bytes() if score.exists() else b"")
        return digest.hexdigest()[:16]
    except Exception as error:
        return f"damaged: {type(error).__name__}"
