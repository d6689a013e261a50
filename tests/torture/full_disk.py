"""Fills the disk while a command runs, and repeats the command with room."""

import random

from tests.torture.campaign import Record
from tests.torture.kills import compare, judge_start, latest_checkpoint, worst
from tests.torture.processes import Fault
from tests.torture.scene import JOBS, Scene, can_mount, resize_disk

_JOBS = (
    *("prepare", "render", "decode", "train", "resume", "evaluate", "report", "embed", "sweep"),
    *("cross-dataset table", "gallery add"),
)


def case(scene: Scene, rng: random.Random, name: str) -> Record:
    """Runs a command on a small disk, or while no file can grow, and then without a limit.

    Half of the cases are on a tmpfs, where the system allows to mount one.

    Outcomes: `same`, the limit was not reached; `refused` with a sentence and the right result
    afterwards; and the defects of `kills.case`.
    """
    subject = rng.choice([name for name in _JOBS if name in JOBS])
    job, reference = JOBS[subject], scene.references[subject]
    room = rng.choice((0, 1, rng.randrange(4096), 4096, rng.randrange(65536)))
    fault = Fault(operation=rng.randint(1, max(1, reference.operations)), room=room)
    free = int(reference.size * rng.random())
    small = rng.random() < 0.5 and can_mount(scene.root / "mount")
    what = f"{subject} with {free:,} bytes free" if small else str(fault)
    with scene.copy(job, name, disk=small) as directory:
        if small:
            resize_disk(directory, free)
        limited = job.run(directory, None if small else fault)
        if small:
            resize_disk(directory, 1 << 30)
        defects = [f"{limited.defect}: {limited.last_words}"] if limited.defect else []
        if limited.status == 0:
            defects += compare(directory, job, reference.content)
        step = latest_checkpoint(directory)
        ended = job.run(directory)
        defects += judge_start(ended, step)
        if ended.status != 0:
            defects.append(f"lost: it ends with status {ended.status}: {ended.last_words}")
        else:
            defects += compare(directory, job, reference.content)
    outcome, detail = worst(defects)
    if outcome == "same" and limited.status != 0:
        outcome, detail = "refused", limited.last_words
    return Record(subject, what, outcome, detail=detail)
