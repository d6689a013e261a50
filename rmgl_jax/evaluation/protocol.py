"""The evaluation protocol: embed query and gallery, rank, and say what was measured."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from rmgl_jax.config import EvalConfig, ModelConfig
from rmgl_jax.data.store import Split
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.ranking import rank_features, rank_metrics
from rmgl_jax.evaluation.reranking import rerank
from rmgl_jax.evaluation.result import EvaluationResult, Reranked


def evaluate(
    model: ModelConfig,
    variables: Mapping[str, Any],
    query: Split,
    gallery: Split,
    settings: EvalConfig,
    *,
    checkpoint: str | None = None,
    step: int | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Ranks the gallery for every query by the distance of their embeddings.

    Args:
        model: of the variables.
        variables: `params` and `batch_stats`.
        query: Q images; their camera ids are used if there are any.
        gallery: G images, distractors included.
        settings: flip, batch size and re-ranking.
        checkpoint: where the variables come from, for the result.
        step: training steps they have seen, likewise.
        console: shows progress on it.
    """
    embeddings = [
        embed(
            model,
            variables,
            split.images,
            batch_size=settings.batch_size,
            flip=settings.flip,
            console=console,
            description=f"embedding {split.split}",
        )
        for split in (query, gallery)
    ]
    identities = (query.pids, query.camids, gallery.pids, gallery.camids)
    reranked = None
    if settings.rerank:
        distances = rerank(
            *embeddings, k1=settings.k1, k2=settings.k2, lambda_value=settings.lambda_value
        )
        metrics = rank_metrics(distances, *identities)
        reranked = Reranked(metrics, settings.k1, settings.k2, settings.lambda_value)
    return EvaluationResult(
        dataset=query.dataset,
        version=query.version,
        n_query=len(query.pids),
        n_gallery=len(gallery.pids),
        n_ids=query.num_classes,
        flipped=settings.flip,
        same_camera_rule=query.camids is not None,
        plain=rank_features(*embeddings, *identities),
        reranked=reranked,
        checkpoint=checkpoint,
        step=None if step is None else str(step),
    )
