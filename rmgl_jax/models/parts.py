"""Parts of the embedding: its branches, paths, regions and single features, as columns."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from rmgl_jax.config import ModelConfig
from rmgl_jax.models.rmgl import FeatureSpec, feature_layout


@dataclass(frozen=True)
class Part:
    """Some of the N part features of a model."""

    kind: str
    """"all", "branch", "path", "region" (whole map or stripes) or "feature"."""
    name: str
    """Name among the parts of its kind, such as "local2", "receptive" or "local2/receptive/1"."""
    features: tuple[int, ...]
    """Positions in `feature_layout`, rising."""

    def columns(self, config: ModelConfig) -> np.ndarray:
        """Columns of the embedding [E] that the part's features fill, in order."""
        within = np.arange(config.embed_dim)
        starts = np.array(self.features)[:, None] * config.embed_dim
        return (starts + within).reshape(-1)


def embedding_parts(config: ModelConfig) -> tuple[Part, ...]:
    """All parts of a model's embedding: the whole, then by branch, path, region and feature.

    The parts of one kind do not overlap, and together they are the embedding.
    """
    layout = feature_layout(config)

    def parts(kind: str, names: Iterable[str]) -> list[Part]:
        by_name: dict[str, list[int]] = {}
        for position, name in enumerate(names):
            by_name.setdefault(name, []).append(position)
        return [Part(kind, name, tuple(features)) for name, features in by_name.items()]

    return (
        *parts("all", ("all" for _ in layout)),
        *parts("branch", (spec.branch_name for spec in layout)),
        *parts("path", (spec.path for spec in layout)),
        *parts("region", map(_region, layout)),
        *parts("feature", (spec.name for spec in layout)),
    )


def _region(spec: FeatureSpec) -> str:
    return "stripes" if spec.stripe else "whole map"
