"""Runs two commands on the same files at once."""

import random
import time

from tests.torture.campaign import Record
from tests.torture.kills import compare, worst
from tests.torture.scene import JOBS, Job, Scene

_PAIRS = (
    ("train", "train"),
    ("resume", "resume"),
    ("everything", "everything"),
    ("prepare", "prepare"),
    ("render", "render"),
    ("decode", "decode"),
    ("sweep", "sweep"),
    ("report", "report"),
    ("embed", "embed"),
    ("cross-dataset table", "cross-dataset table"),
    ("resume", "evaluate"),
    ("resume", "report"),
    ("resume", "embed"),
    ("gallery add", "gallery add"),
    ("gallery search", "gallery search"),
)


def case(scene: Scene, rng: random.Random, name: str) -> Record:
    """Starts two commands shortly after one another, and then the first one again.

    Outcomes: `same`, both ended well; `refused`, one ended with a sentence; `lost`, none ended well
    (sweeps may: each has the other's row); and the defects of `kills.case`.
    """
    first, second = rng.choice([pair for pair in _PAIRS if {*pair} <= {*JOBS}])
    job, other = JOBS[first], JOBS[second]
    both = Job((), tuple(dict.fromkeys((*job.needs, *(set(other.needs) - {"run"})))), job.writes)
    both = Job(both.words, both.needs, both.writes, without=job.without, instead=job.instead)
    pause = rng.choice((0.0, rng.uniform(0.0, scene.references[first].seconds)))
    fault = f"{first} and, {pause:.2f} s later, {second}"
    with scene.copy(both, name) as directory:
        started = job.start(directory)
        time.sleep(pause)
        ends = [other.start(directory).finish(), started.finish()]
        defects = [f"{end.defect}: {end.last_words}" for end in ends if end.defect]
        in_use = first == "sweep" and all("is in use by" in end.output for end in ends)
        if ends[1].status != 0 and (first != second or ends[0].status != 0) and not in_use:
            defects.append("lost: " + " || ".join(end.last_words for end in ends))
        if first != second and ends[0].status != 0 and "damaged" in ends[0].output:
            defects.append(f"wrong: nothing is damaged: {ends[0].last_words}")
        again = job.run(directory)
        if again.status != 0 or again.defect:
            defects.append(f"lost: it ends with status {again.status}: {again.last_words}")
        else:
            defects += compare(directory, job, scene.references[first].content)
    outcome, detail = worst(defects)
    if outcome == "same" and any(end.status != 0 for end in ends):
        outcome = "refused"
        detail = " | ".join(end.last_words for end in ends if end.status != 0)
    return Record(f"{first} and {second}", fault, outcome, detail=detail)
