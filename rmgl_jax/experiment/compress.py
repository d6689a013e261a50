"""Shorter embeddings of a trained model: their projection, and the accuracy that they cost."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from data_prep.errors import InputError
from rmgl_jax.data.store import Split
from rmgl_jax.evaluation.distances import unit_rows
from rmgl_jax.evaluation.embedding import embed_split, embedding_width
from rmgl_jax.evaluation.projection import (
    WHITENING,
    Precision,
    Projection,
    bytes_of,
    check_projection,
    fit_projection,
    reduce_precision,
)
from rmgl_jax.evaluation.ranking import RankMetrics, rank_features
from rmgl_jax.experiment.splits import QueryAndGallery
from rmgl_jax.export.model_file import TrainedModel

TOLERANCE = 0.005
"""The most mAP that the default width may lose."""
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
"""Types of stored embeddings that are measured."""


@dataclass(frozen=True, eq=False)
class CompressionRow:
    """Accuracy with embeddings of a width and precision."""

    dim: int | None
    """Width of the projection; None is the whole embedding."""
    precision: Precision
    """Type of the stored values."""
    n_bytes: int
    """Bytes of an embedding."""
    metrics: RankMetrics
    """Metrics on query and gallery."""


def compress(
    model: TrainedModel,
    train: Split,
    test: QueryAndGallery | None,
    dims: Sequence[int],
    *,
    whitening: float = WHITENING,
    flip: bool = True,
    batch_size: int = 64,
    console: Console | None = None,
) -> tuple[TrainedModel, list[CompressionRow]]:
    """Fits a projection on training images, and measures what shorter embeddings cost.

    Args:
        model: the model.
        train: images that the projection is fitted on.
        test: query and gallery, on which each width is measured; None measures nothing.
        dims: widths.
        whitening: see `fit_projection`.
        flip: Average each embedding with that of the mirrored image.
        batch_size: images embedded at once.
        console: if given, shows progress bars.

    Returns:
        The model with its projection, whose default width is the smallest that loses at most 0.5
        mAP (step); and a row for each width and precision. A calibration of an earlier projection
        is dropped.

    Raises:
        InputError: there are too few images, a width is not positive, or the whitening is not from
            0 to 1.
    """
    if not dims or min(dims) < 1:
        raise InputError(f"The widths must be 1 or more, got {list(dims)}.")
    width = embedding_width(model.config.model)
    check_projection(len(train.pids), width, max(dims), whitening)

    compute = partial(
        embed_split,
        model.config.model,
        model.variables,
        batch_size=batch_size,
        flip=flip,
        console=console,
    )
    projection = fit_projection(compute(train), train.pids, max(dims), whitening, train.dataset)
    rows: list[CompressionRow] = []
    if test is not None:
        query, gallery = test
        rows = measure_widths(
            projection,
            compute(query),
            compute(gallery),
            (query.pids, query.camids, gallery.pids, gallery.camids),
            dims,
        )
        projection = replace(projection, default_dim=default_width(rows))
    calibration = model.calibration
    if calibration is not None and calibration.dim is not None:
        calibration = None
    return replace(model, projection=projection, calibration=calibration), rows


def measure_widths(
    projection: Projection,
    queries: np.ndarray,
    gallery: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None],
    dims: Sequence[int],
    precisions: Sequence[Precision] = PRECISIONS,
) -> list[CompressionRow]:
    """Measures the accuracy of whole and projected embeddings in each precision.

    Args:
        projection: the projection.
        queries: whole embeddings [Q, E].
        gallery: whole embeddings [G, E].
        labels: pids and cameras of the queries, and those of the gallery.
        dims: widths of the projection.
        precisions: types of the stored values.
    """
    rows = []
    for dim in (None, *sorted(set(dims), reverse=True)):
        pair = queries, gallery
        if dim is not None:
            pair = projection(queries, dim), projection(gallery, dim)
        for precision in precisions:
            query, stored = (_restore(embeddings, precision) for embeddings in pair)
            metrics = rank_features(query, stored, *labels)
            n_bytes = bytes_of(pair[0].shape[1], precision)
            rows.append(CompressionRow(dim, precision, n_bytes, metrics))
    return rows


def default_width(rows: Sequence[CompressionRow]) -> int | None:
    """Returns the smallest width that loses at most `TOLERANCE` mAP at float32; None if none."""
    accuracy = {row.dim: row.metrics.mean_ap for row in rows if row.precision == "float32"}
    whole = accuracy.pop(None)
    return min(
        (dim for dim, found in accuracy.items() if dim and whole - found <= TOLERANCE), default=None
    )


def print_widths(rows: Sequence[CompressionRow], console: Console) -> None:
    """Prints a table of `measure_widths`."""
    table = Table(box=box.SIMPLE)
    for heading in ("width", "precision", "bytes", "mAP (official)", "rank-1", "mAP lost"):
        table.add_column(heading, justify="right")
    whole = rows[0].metrics.mean_ap
    for row in rows:
        metrics = row.metrics
        table.add_row(
            "whole" if row.dim is None else str(row.dim),
            row.precision,
            f"{row.n_bytes:,}",
            f"{100 * metrics.mean_ap:.2f} ({100 * metrics.mean_ap_official:.2f})",
            f"{100 * metrics.cmc[0]:.2f}",
            f"{100 * (whole - metrics.mean_ap):.2f}",
        )
    console.print(table)


def _restore(embeddings: np.ndarray, precision: Precision) -> np.ndarray:
    """Returns the embeddings as they are after storage, at unit length."""
    return unit_rows(reduce_precision(embeddings, precision)[0].astype(np.float32))
