"""Measures the time from an experiment's command to its first step, with and without cache.

    python -m benchmarks.startup                                # synthetic_rmgl --preset demo
    python -m benchmarks.startup market_rmgl --preset paper --data-dir data

A first run prepares and decodes the data. Then each round starts the command with an empty
compilation cache, and again with the filled one, until it reports its first step. The time includes
that step. Prints medians over the rounds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report


def first_step(command, directory, cache):
    """Returns the seconds until the command reports its first step, and ends the command."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": "200",
    }
    with tempfile.TemporaryDirectory(dir=directory) as workdir:
        start = time.perf_counter()
        process = subprocess.Popen(
            [*command, "--workdir", workdir],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        printed = []
        try:
            for line in process.stdout:
                printed.append(line)
                if "step 1/" in line:
                    return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
    sys.exit("The command ended before its first step:\n" + "".join(printed))


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiment", nargs="?", default="synthetic_rmgl")
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    arguments, options = parser.parse_known_args()
    command = [sys.executable, "-m", f"experiments.{arguments.experiment}", *options]
    seconds = {"empty cache": [], "warm cache": []}
    with tempfile.TemporaryDirectory() as directory:
        names = [option.partition("=")[0].replace("_", "-") for option in options]
        if "--data-dir" not in names:
            command += ["--data-dir", str(Path(directory) / "data")]
        first_step(command, directory, Path(directory) / "unused")
        for number in range(arguments.rounds):
            cache = Path(directory) / f"cache{number}"
            for name in seconds:
                seconds[name].append(first_step(command, directory, cache))
    table = Table(title=f"{arguments.experiment} {' '.join(options)}: seconds to the first step")
    for column in ("", "median", "minimum", "maximum"):
        table.add_column(column, justify="right" if column else "left")
    for name, values in seconds.items():
        shown = (np.median(values), min(values), max(values))
        table.add_row(name, *(f"{value:.1f}" for value in shown))
    Console(width=100).print(table)
    arguments.options = " ".join(options)
    figures = {name: {"s": float(np.median(values))} for name, values in seconds.items()}
    write_report("startup", arguments, figures)


if __name__ == "__main__":
    main()
