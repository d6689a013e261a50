"""Runs the benchmarks of docs/performance.md and compares them with the last on this processor.

    python -m benchmarks.suite                        # or: make bench
    python -m benchmarks.suite --only engines_small retrieval

Each is compared with `benchmarks/results/PROCESSOR/NAME.json`, and then replaces that file.
Ratios of times are printed: below 1 is faster than before. Run it on a machine that does nothing
else.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.report import processor
from data_prep.workers import cores

RESULTS = Path(__file__).parent / "results"
BENCHMARKS = {
    "step_small": "train_step --preset tiny --rounds 15",
    "step_full": "train_step --preset full --batch 8 --rounds 3",
    "engines_small": "engines --preset small --batch-size 64 --rounds 15",
    "engines_full": "engines --preset paper --batch-size 8 --rounds 5",
    "embed": "embed --images 10000 --rounds 1",
    "retrieval": "retrieval --gallery 100000 --widths 512",
    "evaluation": "evaluation market",
}
TIMES = ("ms", "s", "core", "compile")
"""First words of the columns that are compared."""


def results_directory():
    """Returns the directory of the results of this processor."""
    name = re.sub(r"[^a-z0-9]+", "-", processor().lower()).strip("-")
    return RESULTS / f"{name}-{cores()}-cores"


def ratios(before, now):
    """Computes the ratio of each time that both reports have, by row and column."""
    return {
        (row, column): value / before["figures"][row][column]
        for row, columns in now["figures"].items()
        for column, value in columns.items()
        if re.split(r"[ ,]", column)[0] in TIMES and before["figures"].get(row, {}).get(column)
    }


def compare(console, name, before, now):
    """Prints the ratios of a benchmark to those of its last report."""
    machines = [
        f"{report['commit']}, {report['machine']['gflops']} GFLOP/s" for report in (before, now)
    ]
    table = Table(title=f"{name}: {machines[1]}, against {machines[0]}")
    table.add_column("")
    table.add_column("now", justify="right")
    table.add_column("ratio", justify="right")
    for (row, column), ratio in ratios(before, now).items():
        table.add_row(f"{row}: {column}", f"{now['figures'][row][column]:,.2f}", f"{ratio:.2f}")
    console.print(table)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    arguments = parser.parse_args()
    console, directory = Console(width=120), results_directory()
    started, failed = time.perf_counter(), []
    for name in arguments.only:
        module, *options = BENCHMARKS[name].split()
        with tempfile.TemporaryDirectory() as temporary:
            written = Path(temporary) / f"{name}.json"
            command = [sys.executable, "-m", f"benchmarks.{module}", *options]
            console.rule(f"{module} {' '.join(options)}")
            if subprocess.run([*command, "--json", str(written)], env=os.environ).returncode:
                failed.append(name)
                continue
            last = directory / f"{name}.json"
            if last.exists():
                now = json.loads(written.read_text())
                compare(console, name, json.loads(last.read_text()), now)
            directory.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(written, last)
    console.print(f"{(time.perf_counter() - started) / 60:.1f} minutes; results in {directory}")
    if failed:
        raise SystemExit(f"These benchmarks failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
