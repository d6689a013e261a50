"""What a run was: its configuration, and what is known of its making."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.models.rmgl import feature_layout
from rmgl_jax.report.curves import series
from rmgl_jax.training.run_info import read_run_info


def run_card(
    workdir: Path,
    config: ExperimentConfig,
    records: Sequence[Mapping[str, Any]],
    result: EvaluationResult | None,
) -> list[tuple[str, str]]:
    """Names and values, as text. What was not recorded is said to be so."""
    model, train = config.model, config.train
    features = len(feature_layout(model))
    card = [("data set", config.dataset)]
    if result is not None:
        measured = (
            f"{result.dataset} {result.version}: {result.n_query:,} queries of {result.n_ids:,} "
            f"identities, {result.n_gallery:,} gallery images"
        )
        card.append(("evaluated on", measured))
    card += [
        ("identities trained on", f"{model.num_classes:,}"),
        ("input", f"{model.image_size[0]}x{model.image_size[1]} pixels, {model.dtype}"),
        ("embedding", f"{features} features of {model.embed_dim}: {features * model.embed_dim}"),
        (
            "backbone weights",
            "none: from random" if config.pretrained == "none" else config.pretrained,
        ),
        ("seed", str(train.seed)),
        ("batch", f"{train.num_ids} persons x {train.num_instances} images"),
    ]
    steps = max((int(record["step"]) for record in records), default=0)
    card.append(("trained", f"{steps:,} steps; {train.epochs} epochs are the whole run"))
    _, speeds = series(records, "train", "images_per_second")
    if len(speeds):
        card.append(("training speed", f"{np.median(speeds):,.0f} images/s (median)"))
    made = read_run_info(workdir)
    for name in ("command", "commit", "device", "versions"):
        card.append((name, made.get(name) or "not recorded"))
    return card


def changed_fields(config: ExperimentConfig) -> list[tuple[str, str, str]]:
    """Every field that differs from the default, the paper's: name, value, default."""
    default = dict(_leaves(asdict(ExperimentConfig())))
    return [
        (name, json.dumps(value), json.dumps(default[name]))
        for name, value in _leaves(asdict(config))
        if value != default[name]
    ]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
