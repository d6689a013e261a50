"""Applies a trained model to the images of a dataset for the sections that show images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from data_prep.errors import InputError, MissingFileError
from data_prep.preparing import make_builder
from data_prep.records import open_prepared
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.data.split import Split
from rmgl_jax.data.store import decode_split
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.ranking import RankMetrics, rank_features
from rmgl_jax.export.model_file import TrainedModel, load_model
from rmgl_jax.report.ranked_lists import choose_queries
from rmgl_jax.report.response_maps import last_maps

_N_SAMPLES = 6


@dataclass(frozen=True, eq=False)
class Inspection:
    """A trained model, embeddings of query and gallery, and maps of some queries."""

    trained: TrainedModel
    query: Split
    gallery: Split
    embeddings: tuple[np.ndarray, np.ndarray]
    """Unit embeddings of query and gallery, [Q, E] and [G, E]."""
    metrics: RankMetrics
    """Metrics without re-ranking."""
    samples: list[int]
    """Indices of the B queries whose maps are shown, by rising AP."""
    images: np.ndarray
    """Images of these queries, uint8 [B, H, W, 3]."""
    maps: dict[str, jax.Array]
    """Last maps of these queries, [B, h, w, C] by name; see `RMGL.feature_maps`."""


def inspect_run(
    workdir: Path,
    dataset: str,
    step: int | None = None,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> Inspection:
    """Embeds and ranks query and gallery with the model of a run, and computes some maps.

    Args:
        workdir: run directory.
        dataset: name of a prepared dataset.
        step: training step of the checkpoint; the latest by default.
        data_dir: directory of the prepared datasets; TFDS's own by default.
        console: if given and a terminal, shows progress.

    Raises:
        MissingFileError: the dataset is not prepared, or there is no checkpoint.
        InputError: the dataset has no query or no gallery, or no query has a match.
        CheckpointError: there is no undamaged checkpoint of that step.
    """
    trained = load_model(workdir, step)
    config = trained.config
    query, gallery = open_splits(dataset, data_dir, config)
    query_features, gallery_features = (
        embed(
            config.model,
            trained.variables,
            split.images,
            batch_size=config.eval.batch_size,
            flip=config.eval.flip,
            console=console,
            description=f"embedding {split.split}",
        )
        for split in (query, gallery)
    )
    embeddings = query_features, gallery_features
    metrics = rank_features(*embeddings, query.pids, query.camids, gallery.pids, gallery.camids)
    samples = spread([query for _, _, query in choose_queries(metrics.ap)], _N_SAMPLES)
    images = query.batch(np.array(samples))
    maps = last_maps(config.model, trained.variables, images)
    return Inspection(trained, query, gallery, embeddings, metrics, samples, images, maps)


def open_splits(
    dataset: str, data_dir: Path | None, config: ExperimentConfig
) -> tuple[Split, Split]:
    """Opens query and gallery of a prepared dataset, decoded at the model's image size.

    Raises:
        MissingFileError: the dataset is not prepared.
        InputError: the dataset has no query or no gallery.
    """
    builder = make_builder(dataset, None, data_dir, allow_partial=True)
    # TFDS logs a warning if the directory does not exist.
    if not (builder.data_path.exists() and builder.is_prepared()):
        raise MissingFileError(
            f"{dataset} is not prepared in {builder.data_dir_root}, but the report shows its "
            "images: --data-dir must be the directory that the run was given."
        )
    builder = open_prepared(builder.data_path)
    missing = {"query", "gallery"} - set(builder.info.splits)
    if missing:
        raise InputError(f"{builder.data_path} has no split {' and no '.join(sorted(missing))}.")
    query, gallery = (
        decode_split(builder, split, config.model.image_size) for split in ("query", "gallery")
    )
    return query, gallery


def spread(items: Sequence[int], count: int) -> list[int]:
    """Returns at most `count` of the items, evenly spaced, with the first and the last."""
    positions = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(position)] for position in positions]
