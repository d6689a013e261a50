"""The evaluation protocol: embed query and gallery, rank, and say what was measured."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from rmgl_jax.config import EvalConfig, ModelConfig
from rmgl_jax.data.store import Split
from rmgl_jax.evaluation.distances import distance_blocks
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.query_expansion import expand_queries
from rmgl_jax.evaluation.ranking import rank_blocks, rank_features
from rmgl_jax.evaluation.reranking import rerank_blocks
from rmgl_jax.evaluation.result import EvaluationResult, Expanded, Reranked
from rmgl_jax.evaluation.verification import verification_blocks


def evaluate(
    model: ModelConfig,
    variables: Mapping[str, Any],
    query: Split,
    gallery: Split,
    settings: EvalConfig,
    *,
    expand: bool = False,
    verify: bool = False,
    checkpoint: str | None = None,
    step: int | None = None,
    trained_on: str | None = None,
    digest: str | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Ranks the gallery for every query by the distance of their embeddings.

    Nothing of the size Q x G is ever held, with re-ranking or without.

    Args:
        model: of the variables.
        variables: `params` and `batch_stats`.
        query: Q images; their camera ids are used if there are any.
        gallery: G images, distractors included.
        settings: flip, batch size and re-ranking.
        expand: also ranks by alpha query expansion, with its usual k and alpha.
        verify: also measures true positive rates at low false positive rates.
        checkpoint: where the variables come from, for the result.
        step: training steps they have seen, likewise.
        trained_on: the data set of those steps, likewise.
        digest: fingerprint of the checkpoint, likewise.
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
    reranked = expanded = verification = None
    if settings.rerank:
        parameters = (settings.k1, settings.k2, settings.lambda_value)
        blocks = rerank_blocks(*embeddings, *parameters)
        reranked = Reranked(rank_blocks(blocks, *identities), *parameters)
    if expand:
        k, alpha = 5, 3.0
        queries = expand_queries(*embeddings, k, alpha)
        expanded = Expanded(rank_features(queries, embeddings[1], *identities), k, alpha)
    if verify:
        verification = verification_blocks(distance_blocks(*embeddings), *identities)
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
        expanded=expanded,
        verification=verification,
        checkpoint=checkpoint,
        step=None if step is None else str(step),
        trained_on=trained_on,
        digest=digest,
    )
