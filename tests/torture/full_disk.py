"""Fills the disk at a random file operation of a command, and repeats the command with room."""

import random

from tests.torture.campaign import Record
from tests.torture.kills import compare, judge_start, latest_checkpoint, worst
from tests.torture.processes import Fault
from tests.torture.scene import JOBS, Scene

_JOBS = ("prepare", "render", "decode", "train", "resume", "evaluate", "report", "embed", "sweep")


def case(scene: Scene, rng: random.Random, name: str) -> Record:
    """Runs a command while no file can grow beyond some bytes, then without a limit.

    Outcomes: `same`, the limit was not reached; `refused` with a sentence and the right result
    afterwards; and the defects of `kills.case`.
    """
    subject = rng.choice((*_JOBS, "cross-dataset table"))
    job, reference = JOBS[subject], scene.references[subject]
    room = rng.choice((0, 1, rng.randrange(4096), 4096, rng.randrange(65536)))
    fault = Fault(operation=rng.randint(1, max(1, reference.operations)), room=room)
    with scene.copy(job, name) as directory:
        limited = job.start(directory, fault).finish()
        defects = [f"{limited.defect}: {limited.last_words}"] if limited.defect else []
        if limited.status == 0:
            defects += compare(directory, job.writes, reference.content)
        step = latest_checkpoint(directory)
        ended = job.run(directory)
        defects += judge_start(ended, step)
        if ended.status != 0:
            defects.append(f"lost: it ends with status {ended.status}: {ended.last_words}")
        else:
            defects += compare(directory, job.writes, reference.content)
    outcome, detail = worst(defects)
    if outcome == "same" and limited.status != 0:
        outcome, detail = "refused", limited.last_words
    return Record(subject, str(fault), outcome, detail=detail)
