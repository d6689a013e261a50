"""Schedules the cases of a campaign, bounded in time, and keeps their records.

A case is a pure function of the seed, the kind of fault and a number, so that a failed one can be
repeated. Records are JSON lines; a campaign that finds some continues after them.
"""

import json
import os
import platform
import random
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax

from data_prep.errors import InputError
from rmgl_jax.training.run_info import commit_of
from tests.torture import processes
from tests.torture.scene import Scene, make_scene, open_scene

GOOD = ("same", "recovered", "refused", "accepted")
"""Outcomes that docs/reliability.md promises; all others are defects."""


@dataclass(frozen=True)
class Record:
    """Outcome of one case."""

    subject: str
    """The command, file or input that the fault was made to."""
    fault: str
    """The fault, in words."""
    outcome: str
    """`same`, `recovered`, `refused`, `accepted`, or the name of a defect."""
    count: int = 1
    """Faults of the case; a chain of kills has several."""
    detail: str = ""
    """For a defect, the end of the output and the files that differ."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault."""

    share: float
    """Part of the campaign's time."""
    case: Callable[[Scene, random.Random, str], Record]
    """Runs the case of a random generator and a name."""


def run_campaign(
    kinds: Mapping[str, Kind],
    root: Path,
    results: Path,
    minutes: float,
    seed: int,
    cases: int | None,
    say: Callable[[str], None],
) -> None:
    """Runs cases until the campaign, with the records it continues, is `minutes` long.

    Args:
        kinds: kinds of faults by name.
        root: scratch directory.
        results: file of the records.
        minutes: length of the campaign, without the undisturbed commands at its beginning.
        seed: chooses the faults.
        cases: cases of each kind at most; None is no limit.
        say: prints a line.

    Raises:
        InputError: the records are of another seed, commit or machine.
    """
    header, records = read_results(results)
    mine = describe_campaign(seed)
    if header and header != mine:
        raise InputError(
            f"{results} has the records of {header}, this is {mine}. Choose another --scratch."
        )
    root.mkdir(parents=True, exist_ok=True)
    (root / "cases").mkdir(exist_ok=True)
    workers = [_worker(core, root) for core in sorted(os.sched_getaffinity(0))]
    try:
        scene = open_scene(root)
        if scene is None or scene.campaign != mine or not scene.complete:
            started = time.monotonic()
            workers[0].submit(_make_scene, root, mine).result()
            say(f"The undisturbed commands took {time.monotonic() - started:.0f} s.")
        with results.open("a", buffering=1) as file:
            if not header:
                file.write(json.dumps({"campaign": mine}) + "\n")
            for record in _run(workers, kinds, root, records, minutes, seed, cases):
                file.write(json.dumps(record) + "\n")
                if record["outcome"] not in GOOD:
                    say(
                        f"{record['kind']}/{record['number']} {record['outcome']}: "
                        f"{record['subject']}, {record['fault']}: {record['detail'][:300]}"
                    )
    finally:
        for worker in workers:
            worker.shutdown(wait=False, cancel_futures=True)


def _run(
    workers: list[ProcessPoolExecutor],
    kinds: Mapping[str, Kind],
    root: Path,
    records: list[dict[str, Any]],
    minutes: float,
    seed: int,
    cases: int | None,
) -> Iterator[dict[str, Any]]:
    spent = {name: sum(r["seconds"] for r in records if r["kind"] == name) for name in kinds}
    done = {name: {r["number"] for r in records if r["kind"] == name} for name in kinds}
    before = max((r["at"] for r in records), default=0.0)
    began = time.monotonic()
    running: dict[Future[dict[str, Any]], tuple[ProcessPoolExecutor, str]] = {}
    free = list(workers)
    while True:
        at = before + time.monotonic() - began
        open_kinds = [name for name in kinds if cases is None or len(done[name]) < cases]
        while free and open_kinds and at < 60 * minutes:
            name = min(open_kinds, key=lambda name: spent[name] / kinds[name].share)
            number = next(n for n in range(10**9) if n not in done[name])
            done[name].add(number)
            worker = free.pop()
            running[worker.submit(run_case, kinds[name], name, number, seed, root)] = worker, name
            # An estimate until the case is done, so that two workers choose different kinds.
            spent[name] += 1.0
            open_kinds = [name for name in open_kinds if cases is None or len(done[name]) < cases]
        if not running:
            return
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            worker, name = running.pop(future)
            record = future.result()
            spent[name] += record["seconds"] - 1.0
            free.append(worker)
            yield record | {"at": round(before + time.monotonic() - began, 1)}


def run_case(kind: Kind, name: str, number: int, seed: int, root: Path) -> dict[str, Any]:
    """Runs one case in this process, which must have been started by `start_worker`."""
    scene = open_scene(root)
    assert scene is not None
    began, used = time.monotonic(), _cpu_seconds()
    rng = random.Random(f"{seed} {name} {number}")
    try:
        record = kind.case(scene, rng, f"{name}/{number}")
    except Exception:  # A mistake of the campaign must not end it.
        record = Record("campaign", "", "error", 0, traceback.format_exc()[-2000:])
    return {
        "kind": name,
        "number": number,
        **asdict(record),
        "seconds": round(time.monotonic() - began, 2),
        "cpu_seconds": round(_cpu_seconds() - used, 2),
    }


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read_results(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The description of the campaign in a file, and its records; a torn last line is left out."""
    if not path.exists():
        return {}, []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    headers = [line["campaign"] for line in lines if "campaign" in line]
    return (headers[0] if headers else {}), [line for line in lines if "kind" in line]


def describe_campaign(seed: int) -> dict[str, Any]:
    """Seed, commit and machine of a campaign."""
    return {
        "seed": seed,
        "commit": commit_of(Path(__file__).parents[2]),
        "cores": len(os.sched_getaffinity(0)),
        "machine": f"{platform.machine()}, {platform.system()}",
        "python": platform.python_version(),
    }


def _worker(core: int, root: Path) -> ProcessPoolExecutor:
    context = get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=start_worker, initargs=(core, root))


def start_worker(core: int, root: Path) -> None:
    """Prepares a process to run cases: all its children run on one core."""
    # Programs are compiled once for all processes: forked ones read JAX's settings, new ones the
    # environment.
    settings = {
        "jax_compilation_cache_dir": str(root / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_platforms": "cpu",
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.sched_setaffinity(0, {core})
    processes.preload()


def _make_scene(root: Path, campaign: dict[str, Any]) -> None:
    make_scene(root, campaign, lambda line: print(line, flush=True))
