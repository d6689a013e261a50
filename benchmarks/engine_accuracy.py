"""Compares the accuracy of a trained model in JAX, ONNX Runtime and OpenVINO.

    python -m benchmarks.engine_accuracy runs/market --data-dir data
    python -m benchmarks.engine_accuracy runs/market --data-dir data --queries 320

Query and gallery of the model's dataset are embedded by every engine in every precision that it has
on this processor. Prints mAP (step), rank-1, the mAP that is lost against JAX, and the smallest
cosine similarity to the embedding of JAX. With `--queries` only the first queries are taken, and of
the gallery only the images of their identities: mAP is then higher and comparable within the table
only.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report
from data_prep.errors import ExpectedError, MissingFileError
from data_prep.preparing import find_prepared
from rmgl_jax.evaluation.ranking import rank_features
from rmgl_jax.experiment.splits import load_query_and_gallery
from rmgl_jax.export.model_file import load_model
from rmgl_jax.gallery.embedder import Embedder

ENGINES = (
    ("jax", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("onnxruntime", "float32"),
)


def embed_images(embedder, images, rows):
    """Embeds images of a split, in parts that are multiples of a batch."""
    parts = np.array_split(rows, range(2048, len(rows), 2048))
    return np.concatenate([embedder(np.ascontiguousarray(images[part])) for part in parts])


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--queries", type=int)
    add_json_option(parser)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    builder = find_prepared(model.trained_on, arguments.data_dir)
    if builder is None:
        raise MissingFileError(f"{model.trained_on} is not prepared in {arguments.data_dir}.")
    query, gallery = load_query_and_gallery(builder, model.config.model.image_size)
    chosen = np.arange(arguments.queries or len(query))
    rows = (chosen, np.arange(len(gallery)))
    if arguments.queries:
        rows = (chosen, np.flatnonzero(np.isin(gallery.pids, query.pids[chosen])))
    labels = [
        values[row]
        for split, row in zip((query, gallery), rows, strict=True)
        for values in (split.pids, split.camids)
    ]
    table = Table(title=f"{len(rows[0]):,} queries, {len(rows[1]):,} gallery images")
    for column in ("", "mAP", "rank-1", "mAP lost", "cosine", "images/s"):
        table.add_column(column, justify="right" if column else "left")
    figures, first = {}, None
    for engine, precision in ENGINES:
        try:
            embedder = Embedder(model, arguments.batch_size, engine=engine, precision=precision)
        except ExpectedError as error:
            print(error)
            continue
        start = time.perf_counter()
        found = [
            embed_images(embedder, split.images, row)
            for split, row in zip((query, gallery), rows, strict=True)
        ]
        seconds = time.perf_counter() - start
        metrics = rank_features(*found, *labels)
        embeddings = np.concatenate(found)
        first = first or (metrics.mean_ap, embeddings)
        figures[f"{engine}, {precision}"] = row = {
            "mAP": 100 * float(metrics.mean_ap),
            "rank-1": 100 * float(metrics.cmc[0]),
            "mAP lost": 100 * float(first[0] - metrics.mean_ap),
            "cosine": float((embeddings * first[1]).sum(axis=1).min()),
            "images/s": len(embeddings) / seconds,
        }
        formats = (".2f", ".2f", ".3f", ".6f", ",.0f")
        cells = [f"{value:{form}}" for value, form in zip(row.values(), formats, strict=True)]
        table.add_row(f"{engine}, {precision}", *cells)
    Console(width=100).print(table)
    write_report("engine_accuracy", arguments, figures)


if __name__ == "__main__":
    main()
