"""Measures a gallery: search time and memory with random vectors, and accuracy on a dataset.

    python -m benchmarks.gallery --images 100000 1000000 --widths 512 3584 --index exact
    python -m benchmarks.gallery --market DATA_DIR MODEL [--location http://localhost:19530]

With random vectors: seconds to insert, size on disk, peak memory of the process with Milvus Lite
in it, seconds to open, medians of the seconds of a search for the 10 nearest (alone, filtered by
camera, and in a batch of 20), and the recall of the index against exact search. Random vectors in
many dimensions have no near neighbors: an approximate index has its worst recall on them.

With `--market`: adds the gallery images of the prepared dataset, searches the 20 best for each
query, more where none of them counts, and prints the rank-1 of these searches. The mAP needs the
rank of every image of the person, which is often among the last; a search for all images takes
seconds, so that only every n-th query is searched until all are found (`--deep` of them). The
stored embeddings, ranked without Milvus, are measured on all queries and on those; with the exact
index both rows must be equal, and the first equal to `rmgl evaluate`. A directory as `--location`
is kept.
"""

import argparse
import math
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from data_prep.preparing import find_prepared
from data_prep.records import read_records
from rmgl_jax import Gallery, load_model, rank_metrics
from rmgl_jax.evaluation.distances import distance_blocks
from rmgl_jax.gallery.collection import COLLECTION, open_collection
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.embedder import Embedder
from rmgl_jax.gallery.entries import Entry, Filters
from rmgl_jax.gallery.identify import identify
from rmgl_jax.gallery.milvus import connect, disconnect, is_url

CHUNK = 1000
CAMERAS = 6


def unit_vectors(seed, count, width):
    """Returns random unit vectors [count, width]."""
    vectors = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def median_seconds(function, rounds):
    """Returns the median time of a call, after one that does not count."""
    function()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(images, width, index, location, rounds):
    """Fills a collection with random vectors and returns the cells of a row of the table."""
    name = f"benchmark_{images}_{width}_{index}"
    start = time.perf_counter()
    client = connect(location)
    collection = open_collection(client, location, name, index, width, "")
    for first in range(0, images, CHUNK):
        numbers = range(first, min(first + CHUNK, images))
        entries = [
            Entry(f"{n:032x}", f"/images/{n}.jpg", None, str(n % CAMERAS), None, ())
            for n in numbers
        ]
        collection.upsert(entries, unit_vectors(first, len(numbers), width))
    collection.flush()
    disconnect(client, location)
    inserted = time.perf_counter() - start
    start = time.perf_counter()
    client = connect(location)
    collection = open_collection(client, location, name, index, width, "")
    queries = unit_vectors(images, 20, width)
    collection.nearest(queries[:1], 10, Filters())
    opened = time.perf_counter() - start
    one = median_seconds(lambda: collection.nearest(queries[:1], 10, Filters()), rounds)
    camera = Filters(cameras=("1",))
    filtered = median_seconds(lambda: collection.nearest(queries[:1], 10, camera), rounds)
    batch = median_seconds(lambda: collection.nearest(queries, 10, Filters()), rounds) / len(
        queries
    )
    recall = measured_recall(collection, queries, images, width)
    disconnect(client, location)
    disk = sum(file.stat().st_size for file in Path(location).rglob("*") if file.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return [
        f"{images:,}",
        f"{width:,}",
        index,
        f"{inserted:,.0f} s",
        f"{disk / 2**30:.2f} GiB",
        f"{peak / 2**30:.2f} GiB",
        f"{opened:.1f} s",
        f"{1000 * one:,.1f} ms",
        f"{1000 * filtered:,.1f} ms",
        f"{1000 * batch:,.1f} ms",
        f"{recall:.3f}",
    ]


def measured_recall(collection, queries, images, width):
    """Returns the share of the exact 10 best that a search finds."""
    best = np.full((len(queries), 10), -np.inf, np.float32)
    for first in range(0, images, CHUNK):
        vectors = unit_vectors(first, min(CHUNK, images - first), width)
        both = np.concatenate([best, queries @ vectors.T], axis=1)
        best = -np.partition(-both, 9, axis=1)[:, :10]
    least = best.min(axis=1) - 1e-5
    found = collection.nearest(queries, 10, Filters())
    hits = [
        sum(score >= limit for _, score in row) for row, limit in zip(found, least, strict=True)
    ]
    return min(np.mean(hits) / 10, 1.0)


def evaluate(dataset, data_dir, model_path, location, index, batch_size, deep):
    """Adds a dataset's gallery and searches for its queries.

    Returns:
        The result and the seconds of adding, the seconds of the searches for the 20 best, the
        number of queries, and metrics by name.
    """
    builder = find_prepared(dataset, data_dir)
    model = load_model(model_path)
    with tempfile.TemporaryDirectory() as directory:
        splits = {
            name: write_crops(builder, name, Path(directory)) for name in ("query", "gallery")
        }
        place = location or Path(directory, "store")
        # On a server the benchmark has a collection of its own.
        name = "benchmark" if is_url(str(place)) else COLLECTION
        with Gallery.open(
            place, model, create=True, index=index, name=name, batch_size=batch_size
        ) as gallery:
            embedder = Embedder(model, batch_size, gallery.settings.flip, gallery.settings.dim)
            start = time.perf_counter()
            result = gallery.add(splits["gallery"], progress=True)
            added = time.perf_counter() - start
            # Files with the same bytes are one image of the gallery.
            rows = {}
            for row, crop in enumerate(splits["gallery"]):
                rows.setdefault(identify(crop).id, []).append(row)
            queries = embedder(splits["query"], progress=True)
            distances = np.full((len(queries), len(splits["gallery"])), np.inf, np.float32)
            labels = [
                np.array([getattr(crop, name) for crop in splits[split]], int)
                for split in ("query", "gallery")
                for name in ("pid", "camera")
            ]
            # Images of the query's person by its own camera do not count.
            same = labels[0][:, None] == labels[2]
            ignored = same & (labels[1][:, None] == labels[3])
            every = np.arange(len(queries))
            start = time.perf_counter()
            _search(gallery, queries, every, 20, rows, distances)
            searched = time.perf_counter() - start
            chosen = np.isin(every, every[:: math.ceil(len(every) / deep)])
            for top in (120, 720, 4320, len(gallery)):
                # Rank-1 depends on the first image that counts, of whichever person; the mAP on
                # images up to the last one of the query's person.
                found = np.isfinite(distances)
                missed = chosen & (~found & same & ~ignored).any(axis=1)
                missed |= ~(found & ~ignored).any(axis=1)
                _search(gallery, queries, every[missed], min(top, len(gallery)), rows, distances)
            galleries = np.empty((len(splits["gallery"]), queries.shape[1]), np.float32)
            for first in range(0, len(rows), CHUNK):
                ids = list(rows)[first : first + CHUNK]
                for id, embedding in gallery._collection.embeddings(ids).items():
                    galleries[rows[id]] = embedding
    plain = np.concatenate([block for _, block in distance_blocks(queries, galleries)])
    some = [labels[0][chosen], labels[1][chosen], *labels[2:]]
    metrics = {
        "searches, all": rank_metrics(distances, *labels),
        "embeddings, all": rank_metrics(plain, *labels),
        f"searches, {chosen.sum()}": rank_metrics(distances[chosen], *some),
        f"embeddings, {chosen.sum()}": rank_metrics(plain[chosen], *some),
    }
    return result, added, searched, len(queries), metrics


def _search(gallery, queries, numbers, top, rows, distances):
    """Writes the distances of the best images of some queries; the others stay as they are."""
    if not len(numbers):
        return
    for some in np.array_split(numbers, math.ceil(len(numbers) / 50)):
        for query, hits in zip(some, gallery.nearest(queries[some], top), strict=True):
            for id, score in hits:
                distances[query, rows[id]] = 1 - score


def write_crops(builder, split, directory):
    """Writes the images of a split to files of their original bytes."""
    crops = []
    (directory / split).mkdir()
    for row, record in enumerate(read_records(builder, split)):
        path = directory / split / f"{row:06}{Path(record['name']).suffix}"
        path.write_bytes(record["image_bytes"])
        crops.append(Crop(path, pid=int(record["pid"]), camera=str(record["camid"])))
    return crops


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 3584])
    parser.add_argument("--index", choices=("exact", "hnsw"), default="exact")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument(
        "--location",
        help="directory, or URL of a Milvus server; a temporary directory if absent",
    )
    parser.add_argument("--market", nargs=2, metavar=("DATA_DIR", "MODEL"))
    parser.add_argument("--dataset", default="market1501")
    parser.add_argument("--deep", type=int, default=100, help="queries to search for the mAP")
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = parser.parse_args()
    console = Console(width=140)
    if arguments.market:
        result, added, searched, queries, metrics = evaluate(
            arguments.dataset,
            *arguments.market,
            arguments.location,
            arguments.index,
            arguments.batch_size,
            arguments.deep,
        )
        console.print(
            f"{result.added:,} images added in {added:,.1f} s ({result.present:,} were there), "
            f"{queries:,} searches for the 20 best in {searched:,.1f} s "
            f"({1000 * searched / queries:,.1f} ms each)"
        )
        for name, found in metrics.items():
            text = f"{name:18} rank-1 {100 * found.cmc[0]:.2f}"
            if name != "searches, all":  # Which have the first 20 only.
                text += f"  mAP {100 * found.mean_ap:.2f} (step) "
                text += f"{100 * found.mean_ap_official:.2f} (official)"
            console.print(text)
        return
    table = Table(
        "images",
        "width",
        "index",
        "insert",
        "disk",
        "peak memory",
        "open",
        "search",
        "by camera",
        "of 20",
        "recall@10",
    )
    for images in arguments.images:
        for width in arguments.widths:
            with tempfile.TemporaryDirectory() as directory:
                place = arguments.location or directory
                table.add_row(*measure(images, width, arguments.index, place, arguments.rounds))
    console.print(table)


if __name__ == "__main__":
    main()
