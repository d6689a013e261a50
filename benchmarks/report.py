"""JSON files of benchmarks: machine, versions, commit and figures.

    {"benchmark": "engines", "options": {...}, "machine": {...}, "versions": {...},
     "commit": "...", "time": "...", "figures": {"ROW": {"COLUMN": number}}}

The machine is named by its processor, its cores and the rate of a large float32 matrix product,
measured when the file is written: figures of two runs can be compared if these are equal.
"""

import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from data_prep.files import write_text
from data_prep.workers import cores

PACKAGES = ("jax", "jaxlib", "numpy", "onnxruntime", "openvino", "torch", "faiss-cpu", "usearch")


def add_json_option(parser):
    """Adds the option `--json FILE` to a benchmark's command line."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")


def write_report(benchmark, arguments, figures):
    """Writes the figures of a run to the file of `--json`, if it is given.

    Args:
        benchmark: name of the benchmark.
        arguments: parsed command line.
        figures: numbers by row and column.
    """
    if arguments.json is None:
        return
    options = {name: value for name, value in vars(arguments).items() if name != "json"}
    report = {
        "benchmark": benchmark,
        "options": {name: str(value) for name, value in options.items() if value is not None},
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "figures": figures,
    }
    write_text(arguments.json, json.dumps(report, indent=1) + "\n")


def machine():
    """Describes this machine: processor, cores, rate of a matrix product in GFLOP/s, load."""
    return {
        "processor": processor(),
        "cores": cores(),
        "gflops": round(product_rate() / 1e9),
        "load": round(os.getloadavg()[0], 1),
    }


def processor():
    """Returns the name of the processor, with family and model where the name alone is vague."""
    fields = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


def product_rate(size=2048, rounds=7):
    """Measures a float32 matrix product of NumPy on all cores, best of some, in FLOP/s."""
    left = np.random.default_rng(0).standard_normal((size, size), np.float32)
    right, out = left.T.copy(), np.empty_like(left)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        np.matmul(left, right, out)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def versions():
    """Returns the versions of Python and of the packages that are measured."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit():
    """Returns the commit of this directory, with "+" if files differ from it; "" outside git."""
    try:
        command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
