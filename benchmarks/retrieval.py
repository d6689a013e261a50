"""Compares exact search for the 10 nearest of many embeddings with FAISS and usearch.

    python -m benchmarks.retrieval --gallery 10000
    python -m benchmarks.retrieval --gallery 1000000 --widths 512 128
    python -m benchmarks.retrieval --gallery 500000 --widths 3584

Ours is `rmgl_jax.FlatIndex`. FAISS is IndexFlatIP for float32 and IndexScalarQuantizer for float16
and int8 (8 bits between the least and the greatest value of each dimension); usearch is its exact
search of a matrix. All use the same number of threads. Each method runs in its own process on the
same random unit embeddings, made in parts; peak memory is that of the process before and while it
searches, and includes libraries. Prints medians for one query and for 100, and the recall of the
exact float32 result. FAISS and usearch are left out if they are not installed.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report
from data_prep.workers import cores

TOP = 10
PART = 10_000
PRECISIONS = ("float32", "float16", "int8")
METHODS = {"ours": "jax", "FAISS": "faiss", "usearch": "usearch"}


def parts(count, width):
    """Yields unit embeddings [n, width] around centers, so that each has near ones."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((count // 20 + 1, width), np.float32)
    for start in range(0, count, PART):
        number = min(PART, count - start)
        rows = rng.standard_normal((number, width), np.float32)
        rows += centers[rng.integers(0, len(centers), number)]
        yield rows / np.linalg.norm(rows, axis=1, keepdims=True)


def query_embeddings(count, width):
    """Makes 100 queries: gallery embeddings with noise."""
    rng = np.random.default_rng(1)
    rows = next(parts(count, width))[:100]
    rows = rows + rng.standard_normal(rows.shape, np.float32) / np.sqrt(width)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ours(count, width, precision):
    """Builds this project's index; returns its search."""
    from rmgl_jax.cpu import keep_freed_memory
    from rmgl_jax.evaluation.retrieval import FlatIndex

    keep_freed_memory()
    index = FlatIndex.build(parts(count, width), precision)
    return lambda queries: index.search(queries, TOP).indices


def faiss(count, width, precision):
    """Builds FAISS's index; returns its search."""
    import faiss

    faiss.omp_set_num_threads(cores())
    product = faiss.METRIC_INNER_PRODUCT
    if precision == "float32":
        index = faiss.IndexFlatIP(width)
    else:
        kinds = {"float16": "QT_fp16", "int8": "QT_8bit"}
        kind = getattr(faiss.ScalarQuantizer, kinds[precision])
        index = faiss.IndexScalarQuantizer(width, kind, product)
        index.train(next(parts(count, width)))
    for part in parts(count, width):
        index.add(part)
    return lambda queries: index.search(queries, TOP)[1]


def usearch(count, width, precision):
    """Stores a matrix; returns usearch's exact search in it."""
    from usearch.index import MetricKind, search

    # One scale for all values: usearch has none for each row.
    scale = 127 / max(np.abs(next(parts(count, width))).max() * 1.5, 1e-30)

    def convert(values):
        if precision == "int8":
            return np.clip(np.rint(values * scale), -127, 127).astype(np.int8)
        return values.astype(precision)

    stored = np.empty((count, width), precision)
    for number, part in enumerate(parts(count, width)):
        stored[number * PART : number * PART + len(part)] = convert(part)
    metric = MetricKind.Cos if precision == "int8" else MetricKind.IP

    def run(queries):
        found = search(stored, convert(queries), TOP, metric, exact=True, threads=cores())
        return np.asarray(found.keys).reshape(len(queries), -1)

    return run


def measure(method, count, width, precision, rounds):
    """Measures one method in this process: milliseconds for 1 and for 100 queries, and memory."""
    search = {"ours": ours, "FAISS": faiss, "usearch": usearch}[method](count, width, precision)
    queries = query_embeddings(count, width)
    built = peak()
    figures = {}
    for number in (1, len(queries)):
        search(queries[:number])
        times, busy = [], []
        for _ in range(rounds):
            start, cpu = time.perf_counter(), time.process_time()
            found = search(queries[:number])
            times.append(time.perf_counter() - start)
            busy.append(time.process_time() - cpu)
        figures[f"ms, {number}"] = 1e3 * float(np.median(times))
        figures[f"core ms, {number}"] = 1e3 * float(np.median(busy))
    figures |= {"GiB built": built, "GiB searched": peak(), "found": found.tolist()}
    return figures


def peak():
    """Returns the peak memory of this process in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(*arguments):
    """Runs `measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.retrieval", "--measure", json.dumps(arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Runs the command line."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gallery", type=int, default=10_000)
    parser.add_argument("--widths", type=int, nargs="+", default=[3584, 512, 128])
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--rounds", type=int, default=5)
    add_json_option(parser)
    arguments = parser.parse_args()
    console, figures = Console(width=120), {}
    for width in arguments.widths:
        table = Table(title=f"{TOP} nearest of {arguments.gallery:,}, width {width:,}")
        exact = run("ours", arguments.gallery, width, "float32", 1)["found"]
        for precision in arguments.precisions:
            for method in arguments.methods:
                if not find_spec(METHODS[method]):
                    continue
                with console.status(f"{width}, {precision}, {method}"):
                    row = run(method, arguments.gallery, width, precision, arguments.rounds)
                found = row.pop("found")
                hits = [len(set(a) & set(b)) for a, b in zip(found, exact, strict=True)]
                row["recall"] = float(np.mean(hits)) / len(exact[0])
                if not table.columns:
                    table.add_column("")
                    for name in row:
                        table.add_column(name, justify="right")
                table.add_row(
                    f"{precision}, {method}", *(f"{value:,.2f}" for value in row.values())
                )
                figures[f"{width}, {precision}, {method}"] = row
        console.print(table)
    write_report("retrieval", arguments, figures)


if __name__ == "__main__":
    main()
