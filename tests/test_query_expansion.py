import numpy as np
import pytest

from rmgl_jax.evaluation.query_expansion import expand_queries
from rmgl_jax.evaluation.ranking import rank_features


def unit(features):
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def features(seed, n, width=8):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


@pytest.mark.parametrize(("k", "alpha"), [(1, 3.0), (4, 0.0), (4, 3.0), (100, 1.5)])
def test_expand_queries_agrees_with_loop(k, alpha):
    query, gallery = features(0, 9), features(1, 25)
    got = expand_queries(query, gallery, k, alpha, block=4)
    assert got.dtype == np.float32
    for q, expanded in zip(unit(query), got, strict=True):
        cosines = unit(gallery) @ q
        total = q.copy()
        for g in np.argsort(-cosines)[:k]:
            total += max(cosines[g], 0) ** alpha * unit(gallery[g])
        np.testing.assert_allclose(expanded, unit(total), atol=1e-6)


def test_expand_queries_improves_clustered_ranking():
    rng = np.random.default_rng(0)
    pids = np.repeat(np.arange(40), 12)
    x = (rng.normal(size=(40, 16))[pids] + 0.9 * rng.normal(size=(480, 16))).astype(np.float32)
    order = rng.permutation(480)
    x, pids = unit(x[order]), pids[order]
    labels = pids[:80], None, pids[80:], None
    plain = rank_features(x[:80], x[80:], *labels)
    expanded = rank_features(expand_queries(x[:80], x[80:]), x[80:], *labels)
    assert expanded.mean_ap > plain.mean_ap + 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0}, "0 and 3.0"),
        ({"alpha": -1.0}, "5 and -1.0"),
        ({"alpha": float("nan")}, "5 and nan"),
        ({"query_features": np.zeros((2, 3))}, "query features .* zeros in row 0"),
        ({"gallery_features": np.full((2, 3), np.nan)}, "gallery features .* NaN"),
    ],
)
def test_expand_queries_rejects_invalid_arguments(change, message):
    arguments = {"query_features": np.ones((2, 3)), "gallery_features": np.ones((4, 3))}
    with pytest.raises(ValueError, match=message):
        expand_queries(**arguments | change)
