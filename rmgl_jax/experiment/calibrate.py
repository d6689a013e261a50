"""Thresholds for "same person?" of a trained model, measured on query and gallery of a dataset."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from rmgl_jax.data.store import Split
from rmgl_jax.evaluation.calibration import (
    CALIBRATION_RATES,
    Calibration,
    calibrate,
    check_rates,
)
from rmgl_jax.evaluation.embedding import embed_split
from rmgl_jax.experiment.splits import QueryAndGallery
from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.gallery.embedder import Embedder


def calibrate_model(
    model: TrainedModel,
    test: QueryAndGallery,
    rates: Sequence[float] = CALIBRATION_RATES,
    *,
    flip: bool = True,
    dim: int | None = None,
    batch_size: int = 64,
    console: Console | None = None,
) -> TrainedModel:
    """Returns the model with thresholds for "same person?".

    Args:
        model: the model.
        test: query and gallery; no person of the training should be among them.
        rates: false positive rates.
        flip: Average each embedding with that of the mirrored image.
        dim: width of the projected embedding; None is the whole one.
        batch_size: images embedded at once.
        console: if given, shows progress bars.

    Raises:
        InputError: see `calibrate` and `Embedder`.
    """
    check_rates(rates)
    embedder = Embedder(model, batch_size, flip, dim)

    def compute(split: Split) -> np.ndarray:
        embeddings = embed_split(
            model.config.model,
            model.variables,
            split,
            batch_size=batch_size,
            flip=flip,
            console=console,
        )
        if dim is None or model.projection is None:
            return embeddings
        return model.projection(embeddings, dim)

    query, gallery = test
    calibration = calibrate(
        compute(query),
        compute(gallery),
        query.pids,
        query.camids,
        gallery.pids,
        gallery.camids,
        rates,
        dataset=query.dataset,
        digest=embedder.digest,
        flip=flip,
        dim=dim,
    )
    return replace(model, calibration=calibration)


def print_calibration(calibration: Calibration, console: Console) -> None:
    """Prints thresholds and true positive rates with their confidence intervals."""
    table = Table(box=box.SIMPLE)
    for heading in ("FPR", "threshold", "95 % interval", "TPR", "95 % interval"):
        table.add_column(heading, justify="right")
    for point in calibration.points:
        table.add_row(
            f"{point.fpr:g}",
            f"{point.threshold:.4f}",
            "{:.4f} to {:.4f}".format(*point.threshold_interval),
            f"{100 * point.tpr:.1f} %",
            "{:.1f} to {:.1f} %".format(*(100 * edge for edge in point.tpr_interval)),
        )
    for rate in calibration.unresolved:
        table.add_row(f"{rate:g}", "too few persons")
    console.print(table)
    console.print(
        f"From {calibration.n_persons:,} persons of {calibration.dataset}: "
        f"{calibration.n_positive:,} pairs of images of the same person, "
        f"{calibration.n_negative:,} of different persons. The thresholds hold for its cameras.",
        highlight=False,
        markup=False,
    )
