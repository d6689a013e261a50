import dataclasses

import numpy as np
import pytest

from data_prep.errors import InputError
from rmgl_jax.config import EvalConfig
from rmgl_jax.data.store import Split
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.protocol import evaluate_splits
from rmgl_jax.evaluation.query_expansion import expand_queries
from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.evaluation.reranking import rerank
from rmgl_jax.evaluation.verification import verification_metrics
from tests.tiny import tiny_images
from tests.tiny_model import random_variables
from tests.trained_run import run_config
from tests.trees import assert_trees_close

CONFIG = run_config("tiny").model


def split_of(name, pids, seed):
    pids = np.array(pids, np.int32)
    return Split(
        images=tiny_images(pids, seed)[:, ::3, ::2],
        pids=pids,
        camids=np.arange(len(pids), dtype=np.int32) % 2,
        names=[f"{number}.jpg" for number in range(len(pids))],
        dataset="tiny",
        version="1.2.3",
        split=name,
    )


QUERY = split_of("query", [0, 1, 2, 3], seed=1)
GALLERY = split_of("gallery", [3, 3, 2, 2, 1, 1, 0, 0, 5], seed=2)  # 5 is a distractor.
LABELS = (QUERY.pids, QUERY.camids, GALLERY.pids, GALLERY.camids)


@pytest.fixture(scope="module")
def variables():
    return random_variables(CONFIG)


@pytest.fixture(scope="module")
def distances(variables):
    """Embeddings, and the Euclidean distances of every query and gallery image in float64."""
    query, gallery = (
        embed(CONFIG, variables, split.images, batch_size=8).astype(np.float64)
        for split in (QUERY, GALLERY)
    )
    return query, gallery, np.linalg.norm(query[:, None] - gallery[None], axis=-1)


def assert_metrics(found, expected):
    assert_trees_close(vars(found), vars(expected), atol=1e-7)


def test_evaluate_splits_computes_all_metrics(variables, distances):
    settings = EvalConfig(batch_size=8, rerank=True, k1=4, k2=2, lambda_value=0.5)
    result = evaluate_splits(
        CONFIG,
        variables,
        QUERY,
        GALLERY,
        settings,
        expand=True,
        verify=True,
        checkpoint="runs/a",
        step=12,
        trained_on="other",
        digest="abc",
    )
    query, gallery, euclidean = distances
    assert_metrics(result.plain, rank_metrics(euclidean, *LABELS))
    reranked = rerank(query, gallery, k1=4, k2=2, lambda_value=0.5)
    assert_metrics(result.reranked.metrics, rank_metrics(reranked, *LABELS))
    expanded = expand_queries(query, gallery, 5, 3.0)
    expanded = np.linalg.norm(expanded[:, None] - gallery[None], axis=-1)
    assert_metrics(result.expanded.metrics, rank_metrics(expanded, *LABELS))
    rates = verification_metrics(euclidean, *LABELS)
    found = result.verification
    np.testing.assert_array_equal(found.true_positive_rates, rates.true_positive_rates)
    np.testing.assert_allclose(found.thresholds, rates.thresholds**2, atol=1e-6)
    reported = result.reranked.k1, result.reranked.k2, result.reranked.lambda_value
    assert reported == (4, 2, 0.5)
    assert (result.expanded.k, result.expanded.alpha) == (5, 3.0)
    assert (result.dataset, result.version) == ("tiny", "1.2.3")
    assert (result.n_query, result.n_gallery, result.n_ids) == (4, 9, 4)
    assert (result.flipped, result.same_camera_rule) == (True, True)
    origin = result.checkpoint, result.step, result.trained_on, result.digest
    assert origin == ("runs/a", "12", "other", "abc")


def test_evaluate_splits_without_options_or_cameras(variables, distances):
    query, gallery = (dataclasses.replace(split, camids=None) for split in (QUERY, GALLERY))
    result = evaluate_splits(CONFIG, variables, query, gallery, EvalConfig(batch_size=8))
    assert not result.same_camera_rule
    assert result.reranked is result.expanded is result.verification is None
    expected = rank_metrics(distances[2], QUERY.pids, None, GALLERY.pids, None)
    assert_metrics(result.plain, expected)


def test_evaluate_splits_refuses_rates_of_one_person_before_it_embeds():
    query, gallery = split_of("query", [1], seed=1), split_of("gallery", [1, 1, -1], seed=2)
    with pytest.raises(InputError, match="no pair of different persons"):
        evaluate_splits(CONFIG, {}, query, gallery, EvalConfig(), verify=True)


def test_evaluate_splits_without_flip(variables):
    settings = EvalConfig(batch_size=8, flip=False)
    result = evaluate_splits(CONFIG, variables, QUERY, GALLERY, settings)
    assert not result.flipped
    query, gallery = (
        embed(CONFIG, variables, split.images, batch_size=8, flip=False)
        for split in (QUERY, GALLERY)
    )
    distances = np.linalg.norm(query[:, None] - gallery[None], axis=-1)
    assert_metrics(result.plain, rank_metrics(distances, *LABELS))
