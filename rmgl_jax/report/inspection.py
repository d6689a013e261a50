"""What needs the network and the images: embeds query and gallery once and shows some of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.data.split import Split
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.ranking import RankMetrics, rank_features
from rmgl_jax.export.model_file import TrainedModel, load_model
from rmgl_jax.report.balanced_stripes import BalancedStripes, balanced_stripes
from rmgl_jax.report.ranked_lists import RankedList, ranked_lists
from rmgl_jax.report.response_maps import last_maps, responses
from rmgl_jax.report.shifting_samples import ShiftingSample, shifting_samples

_SAMPLES = 6


@dataclass(frozen=True, eq=False)
class Inspection:
    """A trained network at work on chosen images."""

    trained: TrainedModel
    query: Split
    gallery: Split
    metrics: RankMetrics
    """Of the plain ranking."""
    lists: list[RankedList]
    """By rising AP."""
    samples: list[int]
    """Queries that are shown one by one, by rising AP."""
    responses: dict[str, np.ndarray]
    """[sample, h, w] of every map, 0..1."""
    stripes: list[list[BalancedStripes]]
    """Of each sample, on every map that is balanced."""
    shifted: list[ShiftingSample]
    """Of each sample; none if training did not shift."""


def inspect_run(
    workdir: Path,
    dataset: str,
    step: int | None = None,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> Inspection:
    """Ranks the gallery for every query with a run's network, and looks closer at some queries.

    Args:
        workdir: of the run.
        dataset: its prepared data set, by name.
        step: of the checkpoint; the latest by default.
        data_dir: where prepared data sets are kept.
        console: shows progress on it.

    Raises:
        FileNotFoundError: the data set is not prepared, or there is no checkpoint.
        ValueError: the data set has no query or no gallery, or no query has a match.
        checkpoints.CheckpointError: there is no undamaged one of that step.
    """
    trained = load_model(workdir, step)
    config = trained.config
    query, gallery = open_splits(dataset, data_dir, config)
    embeddings = tuple(
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
    metrics = rank_features(*embeddings, query.pids, query.camids, gallery.pids, gallery.camids)
    lists = ranked_lists(query, gallery, embeddings, metrics.ap)
    samples = spread([item.query for item in lists], _SAMPLES)
    images = query.batch(np.array(samples))
    maps = last_maps(config.model, trained.variables, images)
    shifting = config.augment.shifting
    return Inspection(
        trained=trained,
        query=query,
        gallery=gallery,
        metrics=metrics,
        lists=lists,
        samples=samples,
        responses={name: responses(value) for name, value in maps.items()},
        stripes=balanced_stripes(config.model, maps),
        shifted=shifting_samples(images, shifting, config.train.seed)
        if shifting.probability > 0
        else [],
    )


def open_splits(
    dataset: str, data_dir: Path | None, config: ExperimentConfig
) -> tuple[Split, Split]:
    """Query and gallery of a prepared data set, decoded for the configuration's network.

    Raises:
        FileNotFoundError: the data set is not prepared.
        ValueError: its name is unknown, or it has no query or no gallery.
    """
    from data_prep.preparing import make_builder
    from data_prep.records import open_prepared
    from rmgl_jax.data.store import prepare

    builder = make_builder(dataset, None, data_dir, allow_partial=True)
    # TFDS logs a warning where there is nothing at all.
    if not (builder.data_path.exists() and builder.is_prepared()):
        raise FileNotFoundError(
            f"{dataset} is not prepared in {builder.data_dir_root}, and the pictures are made of "
            "it: --data_dir wants the directory that the run was given."
        )
    builder = open_prepared(builder.data_path)
    lacking = {"query", "gallery"} - set(builder.info.splits)
    if lacking:
        raise ValueError(f"{builder.data_path} has no images of {' and '.join(sorted(lacking))}.")
    query, gallery = (
        prepare(builder, split, config.model.image_size) for split in ("query", "gallery")
    )
    return query, gallery


def spread(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spaced, the first and the last among them."""
    places = np.linspace(0, len(items) - 1, min(count, len(items)))
    return [items[round(place)] for place in places]
