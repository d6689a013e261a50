"""Kills commands at random moments, repeats them, and compares their results bit for bit."""

import random
import re
import signal
from pathlib import Path

from rmgl_jax.training.scores import best_step, read_scores
from tests.torture.campaign import Record
from tests.torture.fingerprint import LEFTOVER, differences
from tests.torture.processes import Ended, Fault
from tests.torture.scene import JOBS, Job, Scene

_JOBS = {
    **{"prepare": 3, "render": 1, "decode": 2, "everything": 2, "train": 10, "sweep": 3},
    **{"cross-dataset table": 1, "evaluate": 1, "report": 1, "embed": 1},
    **{"gallery add": 3},
}
_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_ATTEMPTS = 5
_RESUMED = re.compile(r"Resuming from step (\d+)")


def case(scene: Scene, rng: random.Random, name: str) -> Record:
    """Kills a command of any kind.

    Outcomes: `same`; `lost`, the command cannot end or began before its last checkpoint;
    `different`; `ignored`, the process went on after a signal; `leftover` files; and the defects of
    `Ended`.
    """
    names = [name for name in _JOBS if name in JOBS]
    subject = rng.choices(names, [_JOBS[name] for name in names])[0]
    return kill_and_repeat(scene, subject, rng, name)


def kill_and_repeat(scene: Scene, subject: str, rng: random.Random, name: str) -> Record:
    """Kills the command of a job up to five times, then lets it end; see `case`."""
    job, reference = JOBS[subject], scene.references[subject]
    # A new Python process takes its imports' time too, and its operations are not counted.
    real = rng.random() < 0.1
    faults: list[str] = []
    defects: list[str] = []
    with scene.copy(job, name) as directory:
        for _ in range(rng.randint(2, _ATTEMPTS)):
            fault = draw_fault(rng, reference.seconds, reference.operations, real)
            step = latest_checkpoint(directory)
            ended = job.start(directory, fault, real).finish()
            defects += judge_start(ended, step)
            if ended.status == 0:
                early = fault.second is None and 2 * (fault.operation or 0) < reference.operations
                if early and ended.operations > (fault.operation or 0) and not fault.delay:
                    faults.append(str(fault))
                    defects.append(f"ignored: {fault}")
                break
            if ended.status not in killed_by(fault) and not ended.defect:
                defects.append(f"lost: status {ended.status} after {fault}: {ended.last_words}")
                break
            faults.append(str(fault))
        step = latest_checkpoint(directory)
        ended = job.run(directory)
        defects += judge_start(ended, step)
        if ended.status != 0:
            defects.append(f"lost: it ends with status {ended.status}: {ended.last_words}")
        else:
            defects += compare(directory, job, reference.content)
    subject += " (new process)" if real else ""
    outcome, detail = worst(defects)
    return Record(subject, "; ".join(faults) or "none", outcome, len(faults), detail)


def draw_fault(rng: random.Random, seconds: float, operations: int, real: bool) -> Fault:
    """A signal at a random time, at a file operation, or shortly after one."""
    number = rng.choice(_SIGNALS)
    if real:
        return Fault(number, second=rng.uniform(2.0, 6.0 + seconds))
    if rng.random() < 0.4:
        return Fault(number, second=rng.uniform(0.0, 1.1 * seconds))
    delay = rng.choice((0.0, rng.uniform(0.0, 0.1)))
    return Fault(number, rng.randint(1, max(1, operations)), delay)


def killed_by(fault: Fault) -> tuple[int, ...]:
    """Exit statuses of a process that the signal of a fault ended."""
    assert fault.sent is not None
    return (-fault.sent, 128 + fault.sent)


def latest_checkpoint(directory: Path) -> int:
    """Step of the last complete checkpoint of the run in a copy; 0 if there is none."""
    names = [path.name for path in directory.glob("run/checkpoints/*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def judge_start(ended: Ended, step: int) -> list[str]:
    """Defects of one process: how it ended, and a run that began before its last checkpoint."""
    defects = [f"{ended.defect}: {ended.last_words}"] if ended.defect else []
    resumed = _RESUMED.search(ended.output)
    if resumed and int(resumed[1]) < step:
        defects.append(f"lost: the checkpoint of step {step} was there. {ended.last_words}")
    return defects


def compare(directory: Path, job: Job, expected: dict[str, str]) -> list[str]:
    """Defects of the files that a repeated command leaves."""
    found = job.content(directory)
    changed, added = differences(found, expected)
    # A checkpoint that is neither recent nor the best may be removed earlier or later.
    changed = [name for name in changed if name in found or not is_superseded(directory, name)]
    defects = [f"different: {', '.join(changed)}"] if changed else []
    left = [path.name for path in directory.rglob("*") if LEFTOVER.search(path.name)]
    # An earlier checkpoint that is whole takes room, but nothing else.
    extra = [name for name in added if "checkpoints" not in name or "damaged" in found[name]]
    if left := [*left, *extra]:
        defects.append(f"leftover: {', '.join(left)}")
    return defects


def is_superseded(directory: Path, name: str) -> bool:
    """True for a checkpoint that is older than two others and not the best."""
    path = directory / name
    if path.parent.name != "checkpoints" or not path.name.isdigit():
        return False
    steps = [int(other.name) for other in path.parent.iterdir() if other.name.isdigit()]
    best = best_step(read_scores(path.parent), [*steps, int(path.name)])
    return sum(step > int(path.name) for step in steps) >= 2 and int(path.name) != best


_ORDER = ("hang", "crash", "lost", "different", "wrong", "traceback", "ignored", "leftover")


def worst(defects: list[str]) -> tuple[str, str]:
    """The worst of some defects with all details; `same` if there are none."""
    if not defects:
        return "same", ""
    names = [defect.partition(":")[0] for defect in defects]
    return min(names, key=_ORDER.index), " | ".join(dict.fromkeys(defects))[:2000]
