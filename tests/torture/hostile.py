"""Hands hostile input to the commands, most of them without JAX, so that hundreds take minutes."""

import random
import shutil

from tests.torture import (
    hostile_arrays,
    hostile_command_lines,
    hostile_images,
    hostile_names,
    hostile_run_files,
    processes,
)
from tests.torture.attempt import WRONG, Make
from tests.torture.campaign import Record
from tests.torture.scene import Scene

_TIMEOUT = 40.0
_SUBJECTS: dict[str, tuple[float, Make]] = {
    "image": (3.0, hostile_images.prepare_image),
    "image to embed": (0.3, hostile_images.embed_image),
    "file name": (2.0, hostile_names.prepare_name),
    "list": (2.0, hostile_names.prepare_list),
    "MAT file": (2.0, hostile_arrays.prepare_matlab),
    "backbone weights": (1.5, hostile_arrays.load_weights),
    "model file": (1.0, hostile_arrays.load_model_file),
    "file of a run": (2.0, hostile_run_files.read_files),
    "command line": (2.0, hostile_command_lines.parse_words),
    "command line to run": (0.4, hostile_command_lines.run_words),
}


def case(scene: Scene, rng: random.Random, name: str) -> Record:
    """Hands one hostile input to the command or function that reads such input.

    Outcomes: `refused` with a sentence; `accepted`; `wrong`, accepted although it means nothing
    that the project supports; and the defects of `Ended`.
    """
    weights = [weight for weight, _ in _SUBJECTS.values()]
    subject = rng.choices(list(_SUBJECTS), weights)[0]
    directory = scene.root / "cases" / name.replace("/", "-").replace(" ", "_")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        attempt = _SUBJECTS[subject][1](scene.base, directory, rng)
        ended = processes.run(attempt.function, attempt.arguments, directory, None, _TIMEOUT)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if ended.defect:
        return Record(subject, attempt.description, ended.defect, detail=ended.last_words)
    if ended.status != 0:
        return Record(subject, attempt.description, "refused", detail=ended.last_words)
    if attempt.must_refuse or WRONG in ended.output:
        detail = ended.last_words or "accepted"
        return Record(subject, attempt.description, "wrong", detail=detail)
    return Record(subject, attempt.description, "accepted")
