"""The files that faults are made to: a small dataset, a run, a sweep, and copies of them.

All commands run inside a copy and name their files by relative paths, so that their results can be
compared between copies.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rmgl_jax import cli
from tests.torture import processes
from tests.torture.fingerprint import fingerprint

DATASET = "folder/torture"
IMAGE_SIZE = (32, 16)
_MODEL = (
    *("--model.image-size", "32", "16", "--model.granularities", "2", "--model.paths", "original"),
    *("--model.original-abp", "off", "--model.width", "2", "--model.embed-dim", "8"),
    *("--model.last-stage", "res4", "--eval.batch-size", "16"),
)
_BATCHES = ("--train.num-ids", "4", "--train.num-instances", "2")
TRAIN = (
    *("train", "--dataset", DATASET, "--preset", "cpu", "--data-dir", "data", "--workdir", "run"),
    *(*_MODEL, *_BATCHES, "--train.epochs", "4", "--train.evaluate-every", "2"),
)
_SWEEP = (
    *("--preset", "tiny", "--dataset", DATASET, "--data-dir", "data", "--workdir", "sweep"),
    *("--rows", "2-stripe", "2-stripe+RSA"),
    *(*_MODEL, *_BATCHES, "--train.epochs", "1"),
)


@dataclass(frozen=True)
class Job:
    """A command, what it reads, and what it writes."""

    words: tuple[str, ...]
    needs: tuple[str, ...]
    """Top-level names of the scene that are copied before it runs."""
    writes: tuple[str, ...]
    """Top-level names that are compared after it."""
    module: str = "rmgl_jax"
    without: tuple[str, ...] = ()
    """Patterns of files that are removed from the copy."""
    instead: tuple[tuple[str, str], ...] = ()
    """Names in the copy, and the name in the scene whose content they have."""
    query: tuple[str, ...] = ()
    """A command that shows what was written, where files do not: its output is compared."""

    def start(
        self, directory: Path, fault: processes.Fault | None = None, real: bool = False
    ) -> processes.Started:
        """Starts the command, in a fork or, if `real`, as a new Python process."""
        run = processes.real_command if real else processes.command
        return processes.start(run, (self.module, *self.words), directory, fault)

    def run(
        self, directory: Path, fault: processes.Fault | None = None, real: bool = False
    ) -> processes.Ended:
        """Runs the command to its end."""
        return self.start(directory, fault, real).finish()

    def content(self, directory: Path) -> dict[str, str]:
        """Digests of all that it wrote, and of what `query` shows."""
        found = fingerprint(directory, self.writes)
        if self.query:
            arguments = (self.module, *self.query)
            shown = processes.run(processes.command, arguments, directory)
            output = shown.output.replace(str(directory), "").encode()
            digest = hashlib.sha256(output).hexdigest()[:16]
            found["query"] = digest if shown.status == 0 else f"damaged: {shown.last_words}"
        return found


_EVALUATE = ("evaluate", "run", "--dataset", DATASET, "--data-dir", "data", "--batch-size", "16")
_EVALUATE += ("--roc", "--query-expansion", "--output", "out/result.json")
_MODEL_FILE = ("evaluate", "model.safetensors", *_EVALUATE[2:])
_PREPARE = ("prepare", "folder", "--source", "source", "--name", "torture", "--data-dir", "data")
_CROPS = ("crops", "--output", "out/embeddings.npz", "--batch-size", "16")
_REPORT = ("report", "run", "--data-dir", "data", "--figures", "--output", "out/report.html")
_TABLE4 = ("--checkpoint", "run", "--data-dir", "data", "--output", "table", "--batch-size", "16")

JOBS = {
    "prepare": Job(_PREPARE, ("source",), ("data",)),
    "render": Job(
        ("prepare", "synthetic", "--config", "tiny", "--data-dir", "data"), (), ("data",)
    ),
    "decode": Job(_EVALUATE, ("data", "run"), ("data", "out"), without=("data/**/decoded",)),
    "train": Job(TRAIN, ("data",), ("run",)),
    "everything": Job((*TRAIN, "--source", "source"), ("source",), ("data", "run")),
    "resume": Job(TRAIN, ("data",), ("run",), instead=(("run", "partial"),)),
    "train again": Job(TRAIN, ("data", "run"), ("run",)),
    "evaluate": Job(_EVALUATE, ("data", "run"), ("out",)),
    "evaluate best": Job((*_EVALUATE, "--best"), ("data", "run"), ("out",)),
    "evaluate model file": Job(_MODEL_FILE, ("data", "model.safetensors"), ("out",)),
    "report": Job(_REPORT, ("data", "run"), ("out",)),
    "embed": Job(("embed", "run", *_CROPS), ("run", "crops"), ("out",)),
    "embed by model file": Job(
        ("embed", "model.safetensors", *_CROPS), ("model.safetensors", "crops"), ("out",)
    ),
    "sweep": Job(_SWEEP, ("data",), ("sweep",), module="experiments.table5_components"),
    "sweep again": Job(
        _SWEEP, ("data", "sweep"), ("sweep",), module="experiments.table5_components"
    ),
    "cross-dataset table": Job(
        _TABLE4, ("data", "run"), ("table",), module="experiments.table4_cross_dataset"
    ),
    "cross-dataset table again": Job(
        _TABLE4, ("data", "run", "table"), ("table",), module="experiments.table4_cross_dataset"
    ),
}
_GALLERY = {
    "gallery add": Job(
        ("gallery", "add", "gallery", "crops", "--model", "model.safetensors", "--batch-size", "2"),
        ("crops", "model.safetensors"),
        ("gallery",),
        query=("gallery", "list", "gallery", "--json"),
    ),
    "gallery search": Job(
        ("gallery", "search", "gallery", "crops/0.png", "--json"),
        ("crops", "gallery"),
        (),
        query=("gallery", "search", "gallery", "crops/0.png", "--json"),
    ),
    "gallery list": Job(
        ("gallery", "list", "gallery", "--json"),
        ("gallery",),
        (),
        query=("gallery", "list", "gallery", "--json"),
    ),
}
MISSING = () if "gallery" in cli.COMMANDS else ("gallery",)
"""Commands that this version does not have, so that the campaign leaves them out."""
JOBS |= {} if MISSING else _GALLERY
_KEPT = ("prepare", "train", "sweep", "cross-dataset table", "gallery add")


@dataclass(frozen=True)
class Reference:
    """An undisturbed run of a job."""

    content: dict[str, str]
    """Digest of each file that it writes."""
    seconds: float
    operations: int
    size: int
    """Bytes that the directory grew by."""


@dataclass
class Scene:
    """A directory with the files of an undisturbed history, and copies of it to work in."""

    root: Path
    campaign: dict[str, Any] = field(default_factory=dict)
    """Seed, commit and machine of the campaign that made it."""
    references: dict[str, Reference] = field(default_factory=dict)
    complete: bool = False
    """Every job has its reference."""
    alternatives: list[dict[str, str]] = field(default_factory=list)
    """Results of earlier checkpoints, which are right if the output names the damage."""

    @property
    def base(self) -> Path:
        """The undisturbed files."""
        return self.root / "base"

    @contextmanager
    def copy(self, job: Job, case: str, disk: bool = False) -> Iterator[Path]:
        """Makes a copy of what a job needs, for the time of the context.

        Args:
            job: names what is copied.
            case: names the directory.
            disk: put it on a disk of its own, a tmpfs, whose size `resize_disk` changes.
        """
        directory = self.root / "cases" / case.replace("/", "-").replace(" ", "_")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        if disk:
            subprocess.run(["mount", "-t", "tmpfs", "none", str(directory)], check=True)
        (directory / "out").mkdir()
        sources = {name: name for name in job.needs} | dict(job.instead)
        for name, source in sources.items():
            _copy(self.base / source, directory / name)
        for pattern in job.without:
            for path in directory.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield directory
        finally:
            if disk:
                subprocess.run(["umount", "--lazy", str(directory)], check=False)
            shutil.rmtree(directory, ignore_errors=True)

    def save(self) -> None:
        """Writes the references."""
        references = {name: vars(reference) for name, reference in self.references.items()}
        tree = {
            "campaign": self.campaign,
            "complete": self.complete,
            "references": references,
            "alternatives": self.alternatives,
        }
        (self.root / "scene.json").write_text(json.dumps(tree))


def open_scene(root: Path) -> Scene | None:
    """Opens a scene, complete or not; None if there is none."""
    path = root / "scene.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    references = {name: Reference(**values) for name, values in found["references"].items()}
    campaign, complete = found["campaign"], found["complete"]
    return Scene(root, campaign, references, complete, found["alternatives"])


def make_scene(root: Path, campaign: dict[str, Any], say: Callable[[str], None]) -> Scene:
    """Runs each job undisturbed and keeps its files and their digests.

    A scene that an interrupted campaign began is continued.

    Raises:
        RuntimeError: an undisturbed command failed.
    """
    scene = open_scene(root)
    if scene is None or scene.campaign != campaign:
        scene = Scene(root, campaign)
        shutil.rmtree(scene.base, ignore_errors=True)
        scene.base.mkdir(parents=True)
        write_source(scene.base / "source")
        write_crops(scene.base / "crops")
        (scene.base / "out").mkdir()
    for name in _KEPT:
        if name in JOBS and name not in scene.references:
            _keep(scene, name, say)
            scene.save()
        if not (scene.base / "partial").exists() and name == "train":
            _keep_partial(scene, say)
        if not (scene.base / "weights.safetensors").exists() and name == "train":
            _keep_model_file(scene)
    for name, job in JOBS.items():
        if name not in scene.references:
            say(f"undisturbed: {name}")
            with scene.copy(job, f"undisturbed {name}") as directory:
                scene.references[name] = measure(name, job, directory)
            scene.save()
    steps = (path.name for path in (scene.base / "run/checkpoints").glob("[0-9]*"))
    scene.alternatives.clear()
    for step in sorted(map(int, steps)):
        for name in ("evaluate", "embed", "report"):
            _keep_alternative(scene, name, step)
    scene.complete = True
    scene.save()
    return scene


def can_mount(directory: Path) -> bool:
    """Tells whether this process may mount a tmpfs."""
    directory.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "none", str(directory)], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        subprocess.run(["umount", str(directory)], check=False)
    return mounted.returncode == 0


def resize_disk(directory: Path, free: int) -> None:
    """Leaves some free bytes, rounded to pages, on the disk of a copy."""
    disk = os.statvfs(directory)
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize
    options = f"remount,size={max(4096, used + free)}"
    subprocess.run(["mount", "-o", options, str(directory)], check=True)


def write_source(root: Path) -> None:
    """Writes a dataset in folders: 8 identities to train, 6 others as query and gallery."""
    rng = np.random.default_rng(0)
    plan = {"train": (range(1, 9), 4), "query": (range(9, 15), 2), "gallery": (range(9, 15), 4)}
    for split, (identities, images) in plan.items():
        (root / split).mkdir(parents=True)
        for identity in identities:
            color = np.random.default_rng(identity).integers(30, 226, (2, 1, 3))
            for number in range(images):
                noise = rng.integers(-60, 61, (*IMAGE_SIZE, 3))
                pixels = np.repeat(color, IMAGE_SIZE[0] // 2, axis=0) + noise
                image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                camera = 1 + number % 2 + 2 * (split == "gallery")
                suffix = "png" if number % 2 else "jpg"
                image.save(root / split / f"{identity:04d}_c{camera}_{number:02d}.{suffix}")


def write_crops(directory: Path) -> None:
    """Writes images to embed."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(6):
        pixels = rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{number}.png")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    elif source.exists():
        shutil.copy2(source, target)


def measure(name: str, job: Job, directory: Path) -> Reference:
    """Runs a job undisturbed.

    Raises:
        RuntimeError: it failed.
    """
    before = _size(directory)
    # Programs are compiled here.
    ended = job.start(directory).finish(timeout=1200.0)
    if ended.status != 0:
        raise RuntimeError(f"The undisturbed command {name} failed:\n{ended.output}")
    return Reference(
        job.content(directory), ended.seconds, ended.operations, _size(directory) - before
    )


def _size(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*"))


def _keep(scene: Scene, name: str, say: Callable[[str], None]) -> None:
    """Runs a job in a copy, and moves what it wrote to the base."""
    say(f"undisturbed: {name}")
    job = JOBS[name]
    with scene.copy(job, f"undisturbed {name}") as directory:
        measure(name, job, directory)  # Fills the cache of compiled programs.
    with scene.copy(job, f"undisturbed {name}") as directory:
        scene.references[name] = measure(name, job, directory)
        # Reading changes the data too: images are decoded on first use.
        for written in {*job.writes, *({"data"} & set(job.needs))}:
            shutil.rmtree(scene.base / written, ignore_errors=True)
            shutil.move(directory / written, scene.base / written)


def _keep_partial(scene: Scene, say: Callable[[str], None]) -> None:
    """Keeps a run that was killed about when its last checkpoint but one was written."""
    say("undisturbed: an interrupted run")
    job, reference = JOBS["train"], scene.references["train"]
    last = _latest(scene.base / "run")
    for share in (0.6, 0.5, 0.7, 0.4, 0.65, 0.55):
        fault = processes.Fault(processes.signal.SIGKILL, int(share * reference.operations))
        with scene.copy(job, "undisturbed partial") as directory:
            job.run(directory, fault)
            if 0 < _latest(directory / "run") < last:
                shutil.move(directory / "run", scene.base / "partial")
                return
    raise RuntimeError("No run could be interrupted between its first and its last checkpoint.")


def _latest(run: Path) -> int:
    steps = (path.name for path in run.glob("checkpoints/*") if path.name.isdigit())
    return max(map(int, steps), default=0)


def _keep_model_file(scene: Scene) -> None:
    names = ("run", "model.safetensors", "weights.safetensors")
    ended = processes.run(_export, names, scene.base)
    if ended.status != 0:
        raise RuntimeError(f"The model file could not be written:\n{ended.output}")


def _export(run: str, path: str, weights: str) -> None:
    from rmgl_jax.export.model_file import load_model, save_model
    from rmgl_jax.models.pretrained import save_backbone

    model = load_model(run)
    save_model(model, path)
    save_backbone(weights, model.variables, model.config.model)


def _keep_alternative(scene: Scene, name: str, step: int) -> None:
    """Keeps what a job gives if all later checkpoints are gone."""
    job = JOBS[name]
    with scene.copy(job, f"undisturbed {name} {step}") as directory:
        for path in directory.glob("run/checkpoints/[0-9]*"):
            if int(path.name) > step:
                shutil.rmtree(path)
        if job.run(directory).status == 0:
            scene.alternatives.append(job.content(directory))
