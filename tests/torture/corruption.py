"""Damages one file of each kind, and runs a command that reads it."""

import random
from dataclasses import dataclass
from pathlib import Path

from tests.torture.campaign import Record
from tests.torture.fingerprint import differences
from tests.torture.kills import is_superseded
from tests.torture.scene import JOBS, Scene


@dataclass(frozen=True)
class Target:
    """Files of one kind, and the jobs that read them."""

    patterns: tuple[str, ...]
    readers: tuple[str, ...]
    optional: tuple[str, ...] = ()
    """Readers that do without the file, so that deleting it is no fault."""
    shown_in: tuple[str, ...] = ()
    """Files that have the content in them. No command can bring it back, so that they may differ
    if the output names the damage."""


_MODEL_READERS = ("evaluate", "resume", "embed", "train again")
_DATA_READERS = ("evaluate", "resume", "train", "report")
TARGETS = {
    "configuration": Target(("run/config.json",), (*_MODEL_READERS, "report")),
    "checkpoint arrays": Target(("run/checkpoints/*/default/**/*",), _MODEL_READERS),
    "checkpoint metadata": Target(
        ("run/checkpoints/*/_CHECKPOINT_METADATA", "run/checkpoints/*/commit_success.txt"),
        _MODEL_READERS,
    ),
    "checkpoint score": Target(("run/checkpoints/scores.json",), ("evaluate best", "resume")),
    "log": Target(
        ("run/metrics.jsonl",),
        ("resume", "report"),
        ("report",),
        ("run/metrics.jsonl", "out/report.html"),
    ),
    "result": Target(("run/result.json",), ("report",), ("report",)),
    "run information": Target(("run/run.json",), ("report",), ("report",)),
    "digest of the data": Target(("run/data.json",), ("resume", "report"), ("resume", "report")),
    # These are the records that "everything stored" reads.
    "records": Target(
        ("data/**/*-query.array_record*", "data/**/*-gallery.array_record*"),
        ("train", "everything stored"),
    ),
    "dataset description": Target(("data/**/*.json",), _DATA_READERS),
    "decoded images": Target(("data/**/*.pixels",), _DATA_READERS),
    "lock": Target(("data/**/.*.lock",), ("evaluate", "train")),
    "model file": Target(("model.safetensors",), ("evaluate model file", "embed by model file")),
    "sweep": Target(
        ("sweep/*/*/config.json", "sweep/*/*/result.json", "sweep/*.md"), ("sweep again",)
    ),
    "data of a sweep": Target(("sweep/*/*/data.json",), ("sweep again",), ("sweep again",)),
    "gallery": Target(("gallery/**/*",), ("gallery search", "gallery list")),
    "cross-dataset results": Target(("table/*.json",), ("cross-dataset table again",)),
}
_WEIGHTS = {
    "checkpoint arrays": 4,
    "decoded images": 3,
    "configuration": 2,
    "model file": 2,
    "gallery": 2,
}
_TOLD = ("damaged", "cannot be used", "again", "not complete", "incomplete", "unreadable")


def case(scene: Scene, rng: random.Random, name: str) -> Record:
    """Damages one file and reads it.

    Outcomes: `refused` with a sentence; `recovered`, the right result and a remark or a repaired
    file; `same`, the right result although nothing was noticed; `wrong`, another result with
    status 0; and the defects of `Ended`.
    """
    names = [name for name in TARGETS if name != "gallery" or "gallery search" in JOBS]
    subject = rng.choices(names, [_WEIGHTS.get(name, 1) for name in names])[0]
    target = TARGETS[subject]
    reader = rng.choice(target.readers)
    undecoded = reader == "everything stored"
    job = JOBS["decode" if undecoded else reader]
    expected = scene.references["decode" if undecoded else reader].content
    with scene.copy(job, name) as directory:
        files = sorted(
            path
            for pattern in target.patterns
            for path in directory.glob(pattern)
            if path.is_file()
        )
        if not files:
            return Record(subject, f"no file for {reader}", "same", 0)
        path = rng.choice(files)
        damage = rng.choice(
            [name for name in DAMAGES if name != "deleted" or reader not in target.optional]
        )
        before = path.read_bytes()
        what = f"{damage} {path.relative_to(directory)} {DAMAGES[damage](path, rng)}".strip()
        damaged = path.read_bytes() if path.exists() else None
        fault = f"{what}, then {reader}"
        if damaged == before:
            return Record(subject, fault, "same", 0)
        ended = job.run(directory)
        if ended.defect:
            return Record(subject, fault, ended.defect, detail=ended.last_words)
        if ended.status != 0:
            return Record(subject, fault, "refused", detail=ended.last_words)
        found = job.content(directory)
        changed, _ = differences(found, expected)
        # An earlier checkpoint that was not read stays damaged.
        unread = {name for name in changed if _is_earlier_checkpoint(name, path, directory)}
        # A run that repeats its last steps may remove one that is neither recent nor the best.
        unread |= {name for name in changed if name not in found and is_superseded(directory, name)}
        changed = [name for name in changed if name not in unread]
        told = any(word in ended.output for word in _TOLD)
        explained = found in scene.alternatives or set(changed) <= set(target.shown_in)
        if changed and not (told and explained):
            detail = f"{', '.join(changed)} | {ended.last_words}"
            return Record(subject, fault, "wrong", detail=detail)
        repaired = path.exists() and path.read_bytes() != damaged
        return Record(subject, fault, "recovered" if told or repaired or changed else "same")


def _is_earlier_checkpoint(name: str, damaged: Path, directory: Path) -> bool:
    place = directory / name
    if place.parent.name != "checkpoints" or place not in damaged.parents:
        return False
    steps = [int(other.name) for other in place.parent.iterdir() if other.name.isdigit()]
    return place.name.isdigit() and int(place.name) < max(steps)


def _flip(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    if not content:
        return "(empty)"
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    _write(path, bytes(content))
    return f"bit {bit}"


def _truncate(path: Path, rng: random.Random) -> str:
    content = path.read_bytes()
    kept = rng.choice((0, rng.randrange(len(content) + 1), max(0, len(content) - 1)))
    _write(path, content[:kept])
    return f"to {kept} of {len(content)} bytes"


def _zero(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    size = min(len(content), rng.choice((16, 512, 4096, 65536)))
    start = rng.randrange(len(content) - size + 1)
    content[start : start + size] = bytes(size)
    _write(path, bytes(content))
    return f"{size} bytes at {start}"


def _delete(path: Path, rng: random.Random) -> str:
    path.unlink()
    return ""


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


DAMAGES = {"flipped": _flip, "truncated": _truncate, "zeroed": _zero, "deleted": _delete}
