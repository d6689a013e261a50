"""Shows which kinds of operations the time of the training step goes into, on a CPU.

    python -m benchmarks.step_profile --preset tiny --batch 64
    python -m benchmarks.step_profile --preset full --batch 8 --steps 3

A trace of some steps gives the time of each operation of the compiled program, summed over the
threads, and the program's text says what an operation does. A fused operation counts as the first
kind in KINDS that it contains.
"""

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report
from benchmarks.train_step import Problem, make_step
from rmgl_jax.cpu import keep_freed_memory

KINDS = {
    "3x3 convolutions and the stem": r"convolution\(",
    "products: 1x1 and Winograd's convolutions, classifiers": r"dot\(",
    "changes of layout": r"(?:transpose|copy)\(",
    "sums and maxima: batch norm, pooling, losses": r"reduce(?:-window)?\(",
    "all other, element by element": "",
}


def kinds_of_operations(program: str) -> dict[str, str]:
    """Returns the kind of each operation of a compiled program, by name."""
    program = re.sub(r", metadata=\{[^}]*\}", "", program)  # which names JAX's operations
    bodies = {
        found[1]: found[2]
        for found in re.finditer(r"^%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", program, re.M | re.S)
    }
    kinds = {}
    for name, text in re.findall(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$", program, re.M):
        called = re.search(r"calls=%?([\w.\-]+)", text)
        text += bodies.get(called[1], "") if called else ""
        kinds[name] = next(kind for kind, pattern in KINDS.items() if re.search(pattern, text))
    return kinds


def trace(run, steps):
    """Traces some steps; returns the seconds of one, and those of its operations by name."""
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            start = time.perf_counter()
            for _ in range(steps):
                run()
            elapsed = (time.perf_counter() - start) / steps
        (file,) = Path(directory).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    seconds: Counter[str] = Counter()
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            seconds[event["args"]["hlo_op"]] += event["dur"] / 1e6 / steps
    return elapsed, seconds


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny", choices=("tiny", "full"))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    add_json_option(parser)
    arguments = parser.parse_args()
    keep_freed_memory()
    problem = Problem(arguments.preset, arguments.batch, "float32", "cpu")
    step, state, batch, key = make_step(problem)
    state = step.replicate(state)
    compiled = step.run.lower(state, batch, key).compile()

    def run():
        nonlocal state
        state, metrics = compiled(state, batch, key)
        jax.block_until_ready(metrics)

    for _ in range(3):
        run()
    elapsed, seconds = trace(run, arguments.steps)
    kinds = kinds_of_operations(compiled.as_text())
    sums: Counter[str] = Counter()
    for name, time_of_one in seconds.items():
        sums[kinds[name]] += time_of_one
    table = Table(
        title=f"{arguments.preset}, batch {arguments.batch}: {1e3 * elapsed:,.1f} ms a step"
    )
    for column in ("", "thread ms", "%"):
        table.add_column(column, justify="right" if column else "left")
    figures = {"step": {"ms": 1e3 * elapsed}}
    for kind in KINDS:
        share = 100 * sums[kind] / sums.total()
        figures[kind] = {"thread ms": 1e3 * sums[kind], "%": share}
        table.add_row(kind, f"{1e3 * sums[kind]:,.1f}", f"{share:.1f}")
    Console(width=100).print(table)
    write_report("step_profile", arguments, figures)


if __name__ == "__main__":
    main()
