"""Measures time and peak memory of ranking and re-ranking, and of plain NumPy evaluators.

    python -m benchmarks.evaluation market     # 3,368 x 15,913, with argsort and dense NumPy
    python -m benchmarks.evaluation msmt17     # 11,659 x 82,161, in blocks only
    python -m benchmarks.evaluation growth     # galleries of 10,000 to 40,000

Every measurement runs in its own process, so that its peak memory includes only imports, features
and the evaluation. Times are of the evaluation alone: wall-clock time, and the sum over all cores.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.evaluation_references import rank_by_argsort, rerank_dense
from benchmarks.report import add_json_option, write_report
from rmgl_jax.evaluation.ranking import rank_blocks, rank_features, rank_metrics
from rmgl_jax.evaluation.reranking import rerank, rerank_blocks


@dataclass(frozen=True)
class Problem:
    """The size of a set of embeddings."""

    queries: int
    gallery: int
    identities: int
    cameras: int
    distractors: int
    width: int

    def features(self, seed=0):
        """Generates (query, gallery, query_pids, query_camids, gallery_pids, gallery_camids).

        An embedding is a point in 128 dimensions (center of its identity, shift of its camera, and
        noise), mapped to `width` dimensions and perturbed by noise.
        """
        rng = np.random.default_rng(seed)
        latent, count = 128, self.queries + self.gallery
        # A distractor is an identity of its own.
        centers = rng.standard_normal((self.identities + self.distractors, latent), np.float32)
        shifts = 0.4 * rng.standard_normal((self.cameras, latent), np.float32)
        basis = rng.standard_normal((latent, self.width), np.float32)
        center = rng.integers(0, self.identities, count)
        center[count - self.distractors :] = self.identities + np.arange(self.distractors)
        camera = rng.integers(0, self.cameras, count)
        spread = rng.gamma(4.0, 0.25, count).astype(np.float32)[:, None]  # some images are worse
        pid = np.where(center < self.identities, center + 1, 0)

        def embed(start, stop):
            features = np.empty((stop - start, self.width), np.float32)
            for begin in range(start, stop, 4096):
                i = slice(begin, min(begin + 4096, stop))
                n = i.stop - i.start
                point = centers[center[i]] + shifts[camera[i]]
                point += spread[i] * rng.standard_normal((n, latent), np.float32)
                rows = features[i.start - start : i.stop - start]
                rng.standard_normal(dtype=np.float32, out=rows)
                rows += point @ basis
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            return features

        q = self.queries
        query, gallery = embed(0, q), embed(q, count)
        return query, gallery, pid[:q], camera[:q], pid[q:], camera[q:]


MARKET = Problem(3368, 15913, 750, 6, 2798, 3584)
MSMT17 = Problem(11659, 82161, 3060, 15, 0, 3584)

# Title and methods; the others are compared with the first.
RANK_MATRIX = ("ranking from distances", ("rank_by_argsort", "rank_metrics"))
RANK = ("ranking from embeddings", ("rank_features",))
RERANK = ("re-ranking", ("rerank_dense", "rerank"))
RERANK_BLOCKS = ("re-ranking and ranking in blocks", ("rerank_blocks",))


def measure(method, problem):
    """Measures time, peak memory and accuracy of one method in this process."""
    query, gallery, *labels = problem.features()
    if method in ("rank_by_argsort", "rank_metrics"):
        distances = 2 - 2 * query @ gallery.T
        del query, gallery

    wall, cores = time.perf_counter(), time.process_time()
    if method == "rank_by_argsort":
        rank1, mean_ap = rank_by_argsort(distances, *labels)
    elif method == "rank_metrics":
        metrics = rank_metrics(distances, *labels)
    elif method == "rank_features":
        metrics = rank_features(query, gallery, *labels)
    elif method == "rerank_blocks":
        metrics = rank_blocks(rerank_blocks(query, gallery), *labels)
    else:
        distances = {"rerank": rerank, "rerank_dense": rerank_dense}[method](query, gallery)
    wall, cores = time.perf_counter() - wall, time.process_time() - cores
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    if method in ("rerank", "rerank_dense"):
        metrics = rank_metrics(distances, *labels)
    if method != "rank_by_argsort":
        rank1, mean_ap = metrics.cmc[0], metrics.mean_ap
    return [wall, cores, peak, float(rank1), float(mean_ap)]


def run(method, problem):
    """Runs `measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.evaluation", "--measure", method]
    command.append(json.dumps(asdict(problem)))
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def compare(console, problem, title, methods):
    """Prints the measurements of all methods, with ratios to the first one.

    Returns:
        The figures by size and method.
    """
    table = Table(
        title=f"{title}: {problem.queries:,} x {problem.gallery:,}, {problem.width:,}-d",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("method", no_wrap=True)
    for name in ("seconds", "ratio", "core s", "ratio", "peak GiB", "ratio", "rank-1", "mAP"):
        table.add_column(name, justify="right", no_wrap=True)
    first, figures = None, {}
    for method in methods:
        with console.status(method):
            values = run(method, problem)
        first = first or values
        names = ("s", "core s", "peak GiB", "rank-1", "mAP")
        size = f"{problem.queries:,} x {problem.gallery:,} x {problem.width:,}"
        figures[f"{size}, {method}"] = dict(zip(names, values, strict=True))
        cells = []
        for value, reference in zip(values[:3], first[:3], strict=True):
            cells += [f"{value:.2f}", f"{reference / value:.1f}"]
        table.add_row(method, *cells, *(f"{100 * value:.2f}" for value in values[3:]))
        if not np.allclose(values[3:], first[3:], atol=1e-4):
            raise SystemExit(f"{method} disagrees: {values[3:]} instead of {first[3:]}.")
    console.print(table)
    return figures


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=("market", "msmt17", "growth"))
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(sys.argv[2], Problem(**json.loads(sys.argv[3])))))
        return
    add_json_option(parser)
    arguments = parser.parse_args()
    console, figures = Console(width=100), {}
    if arguments.size == "market":
        # 2,048 is the width of a ResNet-50's own embedding, 3,584 that of RMGL.
        problems = [replace(MARKET, width=2048), MARKET]
        groups = (RANK_MATRIX, RANK, RERANK)
    elif arguments.size == "msmt17":
        problems, groups = [MSMT17], (RANK, RERANK_BLOCKS)
    else:
        # Market's queries, and identities with as many images each at all sizes.
        sizes = (10_000, 20_000, 40_000)
        problems = [Problem(3368, g, g // 20, 6, 0, 512) for g in sizes]
        groups = (RANK, RERANK_BLOCKS)
    for problem in problems:
        for title, methods in groups:
            figures |= compare(console, problem, title, methods)
    console.print("mAP (step) of synthetic embeddings, which shows that the methods agree.")
    write_report("evaluation", arguments, figures)


if __name__ == "__main__":
    main()
