"""An evaluation ranks by the embeddings, and its result says how."""

import dataclasses

import numpy as np
import pytest

from rmgl_jax.config import EvalConfig
from rmgl_jax.data.store import Split
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.protocol import evaluate
from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.evaluation.reranking import rerank
from tests.tiny import tiny_config, tiny_images
from tests.tiny_model import random_variables

CONFIG = tiny_config().model


def split_of(name, pids, seed):
    pids = np.array(pids, np.int32)
    return Split(
        images=tiny_images(pids, seed),
        pids=pids,
        camids=np.arange(len(pids), dtype=np.int32) % 2,
        names=[f"{number}.jpg" for number in range(len(pids))],
        dataset="tiny",
        version="1.2.3",
        split=name,
    )


QUERY = split_of("query", [0, 1, 2, 3], seed=1)
GALLERY = split_of("gallery", [3, 3, 2, 2, 1, 1, 0, 0, 5], seed=2)  # 5 is a distractor.


@pytest.fixture(scope="module")
def variables():
    return random_variables(CONFIG)


@pytest.fixture(scope="module")
def distances(variables):
    """By the definition: Euclidean, between the embeddings of every query and gallery image."""
    query, gallery = (
        embed(CONFIG, variables, split.images, batch_size=8).astype(np.float64)
        for split in (QUERY, GALLERY)
    )
    return query, gallery, np.linalg.norm(query[:, None] - gallery[None], axis=-1)


def test_the_result_is_of_the_embeddings_and_says_what_it_is(variables, distances):
    result = evaluate(
        CONFIG, variables, QUERY, GALLERY, EvalConfig(batch_size=8), checkpoint="runs/a", step=12
    )
    ids = (QUERY.pids, QUERY.camids, GALLERY.pids, GALLERY.camids)
    expected = rank_metrics(distances[2], *ids)
    np.testing.assert_allclose(result.plain.ap, expected.ap)
    np.testing.assert_allclose(result.plain.cmc, expected.cmc)
    assert (result.dataset, result.version) == ("tiny", "1.2.3")
    assert (result.n_query, result.n_gallery, result.n_ids) == (4, 9, 4)
    assert (result.flipped, result.same_camera_rule, result.reranked) == (True, True, None)
    assert (result.checkpoint, result.step) == ("runs/a", "12")


def test_it_says_whether_it_is_flipped(variables):
    result = evaluate(CONFIG, variables, QUERY, GALLERY, EvalConfig(batch_size=8, flip=False))
    assert not result.flipped


def test_re_ranking_stands_beside_the_plain_result(variables, distances):
    settings = EvalConfig(batch_size=8, rerank=True, k1=4, k2=2, lambda_value=0.5)
    result = evaluate(CONFIG, variables, QUERY, GALLERY, settings)
    reranked = result.reranked
    assert (reranked.k1, reranked.k2, reranked.lambda_value) == (4, 2, 0.5)
    ids = (QUERY.pids, QUERY.camids, GALLERY.pids, GALLERY.camids)
    expected = rank_metrics(rerank(*distances[:2], k1=4, k2=2, lambda_value=0.5), *ids)
    np.testing.assert_allclose(reranked.metrics.ap, expected.ap)
    np.testing.assert_allclose(result.plain.ap, rank_metrics(distances[2], *ids).ap)


def test_without_cameras_there_is_no_same_camera_rule(variables, distances):
    query, gallery = (dataclasses.replace(split, camids=None) for split in (QUERY, GALLERY))
    result = evaluate(CONFIG, variables, query, gallery, EvalConfig(batch_size=8))
    assert not result.same_camera_rule
    expected = rank_metrics(distances[2], QUERY.pids, None, GALLERY.pids, None)
    np.testing.assert_allclose(result.plain.ap, expected.ap)
