"""Hostile values on command lines."""

import random
from pathlib import Path

from tests.torture import processes
from tests.torture.attempt import ODD_WORDS, OUTPUT_WORDS, Attempt
from tests.torture.scene import DATASET, TRAIN

_OPTIONS = {
    "train": (
        *("--dataset", "--preset", "--workdir", "--data-dir", "--source", "--weights"),
        *("--train.epochs", "--train.seed", "--train.num-ids", "--train.num-instances"),
        *("--train.evaluate-every", "--train.checkpoint-every", "--train.keep-checkpoints"),
        *("--train.accumulate", "--optimizer.learning-rate", "--optimizer.momentum"),
        *("--optimizer.warmup-epochs", "--optimizer.decay-epochs", "--optimizer.weight-decay"),
        *("--loss.margin", "--loss.label-smoothing", "--loss.triplet-weight"),
        *("--model.image-size", "--model.granularities", "--model.width", "--model.embed-dim"),
        *("--model.depth", "--model.paths", "--model.original-abp", "--model.receptive-stripes"),
        *("--augment.flip-probability", "--augment.shifting.probability", "--eval.batch-size"),
        *("--distributed.coordinator", "--distributed.processes", "--distributed.process"),
    ),
    "evaluate": (
        *("--checkpoint", "--step", "--dataset", "--data-dir", "--output", "--batch-size"),
        *("--k1", "--k2", "--lambda-value", "--source"),
    ),
    "embed": ("--output", "--batch-size", ""),
    "report": ("--data-dir", "--output", ""),
    "prepare": ("--source", "--data-dir", "--name", "--config", ""),
}
_FIRST = {
    "train": ("--dataset", "folder/absent", "--data-dir", "nothing"),
    "evaluate": ("nothing", "--dataset", "folder/absent", "--data-dir", "nothing"),
    "embed": ("nothing", "nothing.png", "--output", "out.npz"),
    "report": ("nothing",),
    "prepare": ("folder", "--source", "nothing", "--data-dir", "data"),
}


def parse_words(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """A command line with a hostile value, which ends at the files that are not there."""
    command = rng.choice(list(_OPTIONS))
    words = [command, *_FIRST[command]]
    for _ in range(rng.randint(1, 2)):
        words += _hostile(rng, command)
    if rng.random() < 0.1:
        words = rng.sample(words, len(words))
    return Attempt(_show(words), processes.command, ("rmgl_jax", *words))


def run_words(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """A command line with a hostile value and files to work on."""
    command = rng.choice(("train", "train", "evaluate", "embed", "report"))
    run, data = str(base / "run"), str(base / "data")
    first = {
        "train": (*TRAIN, "--data-dir", data, "--train.epochs", "1"),
        "evaluate": ("evaluate", run, "--dataset", DATASET, "--data-dir", data),
        "embed": ("embed", run, str(base / "crops"), "--output", "out.npz"),
        "report": ("report", run, "--data-dir", data, "--output", "report.html"),
    }
    hostile = _hostile(rng, command)
    while "--train.epochs" in hostile[0]:  # An endless run is no defect.
        hostile = _hostile(rng, command)
    words = [*first[command], *hostile]
    real = rng.random() < 0.2
    function = processes.real_command if real else processes.command
    shown = f"{_show(words)}{' (new process)' if real else ''}"
    return Attempt(shown, function, ("rmgl_jax", *words))


def _hostile(rng: random.Random, command: str) -> list[str]:
    option = rng.choice(_OPTIONS[command])
    # Nothing is written outside the working directory, and no length of a run is odd.
    writes = option in ("--workdir", "--output", "--data-dir", "--train.epochs")
    word = rng.choice(OUTPUT_WORDS if writes else ODD_WORDS)
    # A large network is no defect, and a network is not opened.
    if option in ("--model.width", "--model.depth", "--model.embed-dim", "--model.image-size"):
        word = rng.choice(("-1", "0", "nan", "", "x", "1e3", "9" * 400))
    if not option:
        return [word]
    return [f"{option}={word}"] if rng.random() < 0.5 else [option, word]


def _show(words: list[str]) -> str:
    return " ".join(repr(word[:60])[1:-1] or "''" for word in words)[-300:]
