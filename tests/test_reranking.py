import numpy as np
import pytest

from benchmarks.evaluation_references import rerank_dense
from rmgl_jax.evaluation.ranking import rank_blocks, rank_metrics
from rmgl_jax.evaluation.reranking import rerank, rerank_blocks


def clustered(seed, n, width=6, clusters=8):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(clusters, width))[rng.integers(0, clusters, n)]
    return (2 * centers + rng.normal(size=(n, width))).astype(np.float32)


PARAMETERS = [(1, 1), (2, 2), (5, 1), (5, 6), (6, 3), (20, 1), (20, 6), (20, 40), (100, 6)]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 4), (5, 1), (3, 6), (15, 60), (40, 130)])
def test_rerank_equals_dense_definition(sizes):
    """For all parameters; 40 queries are more than are processed at once."""
    for k1, k2 in PARAMETERS:
        features = clustered(k1 + k2, sum(sizes))
        query, gallery = features[: sizes[0]], features[sizes[0] :]
        # The result is linear in lambda.
        jaccard, plain = (
            rerank_dense(query, gallery, k1, k2, lambda_value, np.float64)
            for lambda_value in (0.0, 1.0)
        )
        for lambda_value in (0.0, 0.3, 1.0):
            expected = (1 - lambda_value) * jaccard + lambda_value * plain
            found = rerank(query, gallery, k1, k2, lambda_value)
            assert (found.shape, found.dtype) == (sizes, np.float32)
            message = f"k1 {k1}, k2 {k2}, lambda {lambda_value}"
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=message)


@pytest.mark.parametrize("block", [None, 1, 7])
def test_rerank_blocks_are_rows_of_rerank(block):
    features = clustered(1, 90)
    query, gallery = features[:20], features[20:]
    want = rerank(query, gallery, 10, 3, 0.2)
    blocks = list(rerank_blocks(query, gallery, 10, 3, 0.2, block))
    assert [rows.start for rows, _ in blocks] == list(range(0, 20, block or 20))
    np.testing.assert_allclose(np.concatenate([b for _, b in blocks]), want, atol=1e-6)

    labels = np.arange(20) % 4, np.zeros(20, int), np.arange(70) % 4, np.ones(70, int)
    ranked = rank_blocks(rerank_blocks(query, gallery, 10, 3, 0.2, block), *labels)
    assert ranked.mean_ap == pytest.approx(rank_metrics(want, *labels).mean_ap, abs=1e-6)


@pytest.mark.parametrize("copies", [2, 30])
def test_rerank_with_duplicates_equals_dense_definition(copies):
    # Signs: distances and their ties are exact, so that both sides break the ties alike. 30 copies
    # are more than k1 neighbors.
    rng = np.random.default_rng(0)
    features = rng.choice([-1.0, 1.0], (20, 64)).astype(np.float32)
    features = rng.permuted(np.repeat(features, copies, axis=0), axis=0)
    query, gallery = features[:15], features[15:]
    got = rerank(query, gallery)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, rerank_dense(query, gallery), atol=1e-5)


def test_rerank_of_equal_images():
    features = np.ones((40, 4), np.float32)
    got = rerank(features[:5], features[5:], 4, 2)
    np.testing.assert_allclose(got, rerank_dense(features[:5], features[5:], 4, 2), atol=1e-5)


def test_rerank_with_lambda_1_is_the_scaled_distance_of_normalized_features():
    features = clustered(2, 50)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = ((unit[:10, None] - unit[None]) ** 2).sum(-1)
    want = distances[:, 10:] / distances.max(axis=1, keepdims=True)
    scaled = features * np.linspace(0.1, 9, 50, dtype=np.float32)[:, None]
    np.testing.assert_allclose(rerank(features[:10], features[10:], 5, 2, 1.0), want, atol=1e-6)
    np.testing.assert_allclose(rerank(scaled[:10], scaled[10:], 5, 2, 1.0), want, atol=1e-6)


def test_rerank_takes_other_float_types():
    features = clustered(3, 60).astype(np.float16)
    expected = rerank(features[:10].astype(np.float32), features[10:].astype(np.float32))
    for dtype in (np.float16, np.float64):
        found = rerank(features[:10].astype(dtype), features[10:].astype(dtype))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_rerank_improves_clustered_ranking():
    rng = np.random.default_rng(0)
    pids = np.repeat(np.arange(40), 12)
    features = rng.normal(size=(40, 16))[pids] + 0.9 * rng.normal(size=(480, 16))
    order = rng.permutation(480)
    features, pids = features[order].astype(np.float32), pids[order]
    labels = pids[:80], None, pids[80:], None
    plain = rank_metrics(rerank(features[:80], features[80:], 10, 4, 1.0), *labels)
    reranked = rank_metrics(rerank(features[:80], features[80:], 10, 4, 0.3), *labels)
    assert reranked.mean_ap > plain.mean_ap + 0.05


@pytest.mark.parametrize("function", [rerank, rerank_blocks])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k1": 0}, ValueError, "k1 .* 0 and 6"),
        ({"k2": 0}, ValueError, "k2 .* 20 and 0"),
        ({"lambda_value": 1.5}, ValueError, "lambda_value .* 1.5"),
        ({"query_features": np.ones((2, 4))}, ValueError, "same width, got 4 and 3"),
        ({"query_features": np.ones((2, 3), int)}, TypeError, "query features must be floating"),
        (
            {"gallery_features": np.array([[1, 0, 0], [np.nan, 0, 0]])},
            ValueError,
            "gallery features .* NaN or infinity in row 1",
        ),
        (
            {"gallery_features": np.array([[1.0, 0, 0], [0, 0, 0]])},
            ValueError,
            "gallery features .* zeros in row 1",
        ),
    ],
)
def test_rerank_rejects_invalid_arguments_at_the_call(function, change, error, message):
    arguments = {"query_features": np.ones((2, 3)), "gallery_features": np.ones((4, 3))}
    with pytest.raises(error, match=message):
        function(**arguments | change)


def test_rerank_blocks_rejects_invalid_block_at_the_call():
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        rerank_blocks(np.ones((2, 3)), np.ones((4, 3)), block=0)
