"""Facts and settings of a run."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.models.rmgl import feature_layout
from rmgl_jax.report.run_files import RunFiles, series


def run_card(run: RunFiles) -> list[tuple[str, str]]:
    """Returns names and values of the facts about a run, as text."""
    config, result = run.config, run.result
    model, train = config.model, config.train
    features = len(feature_layout(model))
    steps = max((int(record["step"]) for record in run.records), default=0)
    _, speeds = series(run.records, "train", "images_per_second")
    evaluated = result and (
        f"{result.dataset} {result.version}: {result.n_query:,} queries of {result.n_ids:,} "
        f"identities, {result.n_gallery:,} gallery images"
    )
    return [
        ("dataset", config.dataset),
        ("evaluated on", evaluated or "no result yet"),
        ("training identities", f"{model.num_classes:,}"),
        ("input", f"{model.image_size[0]}x{model.image_size[1]} pixels, {model.dtype}"),
        ("embedding", f"{features} features x {model.embed_dim} = {features * model.embed_dim}"),
        (
            "backbone weights",
            "random initialization" if config.pretrained == "none" else config.pretrained,
        ),
        ("seed", str(train.seed)),
        ("batch", f"{train.num_ids} identities x {train.num_instances} images"),
        ("steps recorded", f"{steps:,} ({train.epochs} epochs are the whole run)"),
        (
            "training speed",
            f"{np.median(speeds):,.0f} images/s (median)" if len(speeds) else "not recorded",
        ),
        ("command", without_directories(run.info.get("command") or "not recorded")),
        *(
            (name, run.info.get(name) or "not recorded")
            for name in ("commit", "device", "versions")
        ),
    ]


def without_directories(command: str) -> str:
    """Shortens absolute paths in a command to ".../NAME": pages are shared, directories private."""
    try:
        words = shlex.split(command)
    except ValueError:  # A quote is not closed, so that it was not recorded by a run.
        return "not readable"
    return shlex.join(map(_without_directory, words))


def _without_directory(word: str) -> str:
    option, equals, value = word.rpartition("=")
    if not value.startswith(("/", "~")):
        return word
    return f"{option}{equals}.../{Path(value).name}"


def changed_fields(config: ExperimentConfig) -> list[tuple[str, str, str]]:
    """Returns name, value and default of every field that differs from the default."""
    defaults = dict(_leaves(asdict(ExperimentConfig())))
    return [
        (name, json.dumps(value), json.dumps(defaults[name]))
        for name, value in _leaves(asdict(config))
        if value != defaults[name]
    ]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
