"""Retrieval with parts of the embedding: which branches, paths and stripes carry the accuracy."""

import numpy as np

from rmgl_jax.config import ModelConfig
from rmgl_jax.evaluation.distances import unit_rows
from rmgl_jax.evaluation.ranking import RankMetrics, rank_features
from rmgl_jax.evaluation.result import PartScores
from rmgl_jax.models.parts import embedding_parts

LabelArrays = tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None]


def score_parts(
    config: ModelConfig,
    queries: np.ndarray,
    galleries: np.ndarray,
    labels: LabelArrays,
    whole: RankMetrics,
) -> tuple[PartScores, ...]:
    """Ranks the gallery by each part of the embedding alone, scaled to unit length.

    Args:
        config: configuration of the model.
        queries: embeddings [Q, E].
        galleries: embeddings [G, E].
        labels: identities and cameras of the queries, then of the gallery; see `rank_features`.
        whole: metrics of the whole embedding.

    Returns:
        Scores of the parts of `embedding_parts`, in their order.
    """
    found: dict[tuple[int, ...], RankMetrics] = {}
    scores = []
    for part in embedding_parts(config):
        columns = part.columns(config)
        if part.kind == "all":
            found[part.features] = whole
        elif part.features not in found:
            found[part.features] = rank_features(
                unit_rows(queries[:, columns]), unit_rows(galleries[:, columns]), *labels
            )
        metrics = found[part.features]
        scores.append(
            PartScores(
                kind=part.kind,
                name=part.name,
                width=len(columns),
                rank_1=float(metrics.cmc[0]),
                mean_ap=float(metrics.mean_ap),
                mean_ap_official=float(metrics.mean_ap_official),
                mean_inp=float(metrics.mean_inp),
            )
        )
    return tuple(scores)
