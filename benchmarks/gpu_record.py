"""Records the performance of a GPU (or of another device) within a given time.

    make gpu                                                    # 25 minutes, into runs/gpu_record
    python -m benchmarks.gpu_record --minutes 25 --folder runs/gpu_record
    python -m benchmarks.gpu_record --preset tiny --minutes 5   # a rehearsal, also on the CPU
    python -m benchmarks.gpu_record --folder runs/gpu_record --table

The stages run in the order of their worth, each in its own process, and each writes one JSON file
into the folder. A stage that fails or exceeds its time leaves a file with the reason, and the next
one starts. Stages that have been measured are not repeated, so the same command continues a record;
those of a rehearsal are no measurement of another preset. The last stage trains on rendered images
from random weights, with checkpoints, for the time that is left.

`--table` prints the tables of docs/performance.md from the files.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.gpu_stages import PROBLEMS, Problem, stages
from data_prep.errors import InputError
from data_prep.files import write_text

ROOT = Path(__file__).parents[1]
TRAINING = "training"
SAVING = 120  # seconds for the training to save its state
SAVED = 143  # exit status of a training that SIGTERM has stopped, and that has saved its state


@contextmanager
def started(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """Starts a command; at the end none of the processes that it has started is left."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run_stage(name: str, problem: Problem, seconds: float) -> dict:
    """Runs a stage in a process of its own; returns its result, or the reason for having none."""
    command = [sys.executable, "-m", "benchmarks.gpu_stages", name]
    # Compilation is measured, too.
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    with started(
        [*command, "--preset", problem.preset], stderr=subprocess.PIPE, env=env
    ) as process:
        try:
            output, errors = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {seconds:.0f} s"}
    if process.returncode:
        return {"error": errors[-2000:]}
    return json.loads(output.splitlines()[-1])


def training_command(problem: Problem, folder: Path) -> list[str]:
    """The arguments of `rmgl` for the training at the end."""
    preset = "paper" if problem.preset == "gpu" else "tiny"
    command = ["train", "--dataset", problem.dataset, "--preset", preset, "--from-scratch"]
    command += ["--model.dtype", problem.config().model.dtype]
    return [*command, "--workdir", str(folder / preset), "--data-dir", str(folder / "data")]


def run_training(problem: Problem, folder: Path, seconds: float) -> dict:
    """Trains for some time; SIGTERM then makes the run save its state."""
    command = ["-m", "rmgl_jax", *training_command(problem, folder)]
    with started([sys.executable, *command], stderr=subprocess.STDOUT) as process:
        # Read all the while: a full pipe would stop the training.
        try:
            output, _ = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                output, _ = process.communicate(timeout=SAVING)
            except subprocess.TimeoutExpired:
                return {"error": f"the training did not end within {SAVING} s of SIGTERM"}
    found = {"command": " ".join(command), "status": process.returncode, "output": output[-4000:]}
    if process.returncode not in (0, SAVED):
        found["error"] = f"the training ended with status {process.returncode}: {output[-2000:]}"
    return found


def record(
    folder: Path,
    problem: Problem,
    minutes: float,
    run: Callable[[str, Problem, float], dict] = run_stage,
    train: Callable[[Problem, Path, float], dict] = run_training,
) -> None:
    """Runs the stages that this problem has no measurement of yet, until the time is over.

    Args:
        folder: gets one JSON file for each stage.
        problem: what is measured.
        minutes: time for all stages; one stage takes half of what is left at most.
        run: runs a stage, given its name, the problem and its seconds.
        train: runs the training, given the problem, the folder and its seconds.

    Raises:
        InputError: the preset `gpu` finds no accelerator.
    """
    end = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    measured = json.loads(json.dumps(dataclasses.asdict(problem)))
    for name in (*stages(problem), TRAINING):
        path = folder / f"{name}.json"
        if path.exists() and _is_done(json.loads(path.read_text()), measured):
            continue
        start = time.monotonic()
        left = end - start
        if left <= 0:
            found = {"error": "no time was left"}
        elif name == TRAINING:
            found = train(problem, folder, left)
        else:
            found = run(name, problem, left / 2)
        if problem.preset == "gpu" and found.get("platform") == "cpu":
            raise InputError(
                "JAX finds no accelerator, only the CPU. With an NVIDIA GPU install the extra "
                "cuda: pip install -c constraints.txt -e '.[cuda]'."
            )
        found["seconds"] = time.monotonic() - start
        found["problem"] = measured
        write_text(path, json.dumps(found, indent=1) + "\n")
        print(f"{name}: {found.get('error') or found.get('skipped') or 'done'}", flush=True)


def _is_done(found: dict, problem: dict) -> bool:
    """True for the file of a stage that was measured, and for this problem."""
    return not found.keys() & {"error", "skipped"} and found.get("problem") == problem


def tables(folder: Path) -> str:
    """Returns the tables of docs/performance.md, in Markdown, from the files of a record."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    lines = []
    if "device" in found.get("environment", {}):
        facts = found["environment"]
        versions = ", ".join(f"{name} {value}" for name, value in facts["versions"].items())
        lines += [f"{facts['devices']} x {facts['device']}, {versions}, commit {facts['commit']}"]
    lines += ["", "| | batch | ms | images/s | MFU | FLOP per byte | temporaries | compile s |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    larger = [name for name in found if name.startswith("batch_")]
    larger.sort(key=lambda name: int(name.removeprefix("batch_")))
    for name in ("step", "step_by_pmap", *larger, "remat"):
        row = found.get(name, {"error": ""})
        title = "remat" if name == "remat" else "pmap" if name == "step_by_pmap" else "jit"
        if "out_of_memory" in row:
            lines.append(f"| step, {title} | {row['batch']} | out of memory | | | | | |")
        elif "error" not in row:
            mfu = f"{row['mfu']:.1%}" if row["mfu"] else ""
            intensity = f"{row['flops_per_byte']:,.0f}" if row["flops_per_byte"] else ""
            lines.append(
                f"| step, {title} | {row['batch']} | {row['milliseconds']:,.1f} | "
                f"{row['images_per_second']:,.1f} | {mfu} | {intensity} | "
                f"{row['temporary_bytes'] / 2**30:,.2f} GiB | {row['compile_seconds']:.1f} |"
            )
    for name, text in (
        ("embed", "Embedding with the mirrored image: {images_per_second:,.0f} images/s."),
        ("host_gap", "A step with new batches takes {gap:.1%} longer than with one batch."),
    ):
        if name in found and "error" not in found[name]:
            lines += ["", text.format(**found[name])]
    errors = [
        f"- {name}: {value.get('error') or value['skipped']}"
        for name, value in found.items()
        if value.keys() & {"error", "skipped"}
    ]
    return "\n".join([*lines, *(["", "Not measured:", *errors] if errors else [])]) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gpu", choices=PROBLEMS)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--folder", type=Path, default=Path("runs/gpu_record"))
    parser.add_argument("--table", action="store_true", help="print the tables of a record")
    options = parser.parse_args(arguments)
    problem = PROBLEMS[options.preset]
    if options.table:
        print(tables(options.folder), end="")
    else:
        # An exception, so that the processes of a stage end too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(SAVED))
        record(options.folder, problem, options.minutes)
        print(tables(options.folder), end="")


if __name__ == "__main__":
    main()
