"""The evaluation protocol: embeds query and gallery, and ranks the gallery for every query."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from rmgl_jax.config import EvalConfig, ModelConfig
from rmgl_jax.data.store import Split
from rmgl_jax.evaluation.distances import distance_blocks
from rmgl_jax.evaluation.embedding import embed_split
from rmgl_jax.evaluation.labels import Labels
from rmgl_jax.evaluation.parts import score_parts
from rmgl_jax.evaluation.query_expansion import expand_queries
from rmgl_jax.evaluation.ranking import rank_blocks, rank_features
from rmgl_jax.evaluation.reranking import rerank_blocks
from rmgl_jax.evaluation.result import EvaluationResult, Expanded, Reranked
from rmgl_jax.evaluation.verification import verification_blocks


def check_test_set(query: Split, gallery: Split, verify: bool = False) -> None:
    """Checks that query and gallery can be evaluated, from their labels alone.

    Args:
        query: Q images.
        gallery: G images.
        verify: Also check that true positive rates at false positive rates can be computed.

    Raises:
        InputError: no query has a match, or `verify` and there is no pair of different persons.
    """
    shape = (len(query.pids), len(gallery.pids))
    labels = Labels.check(shape, query.pids, query.camids, gallery.pids, gallery.camids)
    labels.check_matches()
    if verify:
        labels.check_negatives()


def evaluate_splits(
    model: ModelConfig,
    variables: Mapping[str, Any],
    query: Split,
    gallery: Split,
    settings: EvalConfig,
    *,
    expand: bool = False,
    verify: bool = False,
    by_part: bool = False,
    checkpoint: str | None = None,
    step: int | None = None,
    trained_on: str | None = None,
    digest: str | None = None,
    console: Console | None = None,
) -> EvaluationResult:
    """Ranks the gallery for every query by squared Euclidean distance of the embeddings.

    Distances are computed in blocks: no array of size Q x G is held, with or without re-ranking.

    Args:
        model: configuration of the model.
        variables: `params` and `batch_stats` of the model.
        query: Q images. Camera ids are used if query and gallery have them.
        gallery: G images, including distractors.
        settings: flip, batch size and re-ranking.
        expand: Also rank with alpha query expansion (k = 5, alpha = 3).
        verify: Also compute true positive rates at low false positive rates.
        by_part: Also rank by each part of the embeddings alone.
        checkpoint: source of the variables, recorded in the result.
        step: training step of the variables, recorded in the result.
        trained_on: dataset of the training, recorded in the result.
        digest: digest of the variables, recorded in the result.
        console: if given, shows progress bars.

    Raises:
        InputError: see `check_test_set`, or an embedding is not finite.
    """
    check_test_set(query, gallery, verify)
    queries, galleries = (
        embed_split(
            model,
            variables,
            split,
            batch_size=settings.batch_size,
            flip=settings.flip,
            console=console,
        )
        for split in (query, gallery)
    )
    labels = (query.pids, query.camids, gallery.pids, gallery.camids)
    reranked = expanded = verification = None
    if settings.rerank:
        parameters = (settings.k1, settings.k2, settings.lambda_value)
        blocks = rerank_blocks(queries, galleries, *parameters)
        reranked = Reranked(rank_blocks(blocks, *labels), *parameters)
    if expand:
        k, alpha = 5, 3.0
        expansions = expand_queries(queries, galleries, k, alpha)
        expanded = Expanded(rank_features(expansions, galleries, *labels), k, alpha)
    if verify:
        verification = verification_blocks(distance_blocks(queries, galleries), *labels)
    plain = rank_features(queries, galleries, *labels)
    return EvaluationResult(
        dataset=query.dataset,
        version=query.version,
        n_query=len(query.pids),
        n_gallery=len(gallery.pids),
        n_ids=query.num_classes,
        flipped=settings.flip,
        same_camera_rule=query.camids is not None,
        plain=plain,
        reranked=reranked,
        expanded=expanded,
        verification=verification,
        checkpoint=checkpoint,
        step=None if step is None else str(step),
        trained_on=trained_on,
        digest=digest,
        data_digest=data_digest(query, gallery),
        parts=score_parts(model, queries, galleries, labels, plain) if by_part else None,
    )


def data_digest(query: Split, gallery: Split) -> str:
    """Digest of a test set, which a result records to tell data of the same name apart."""
    return f"{query.digest[:16]} {gallery.digest[:16]}"
