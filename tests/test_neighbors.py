import numpy as np
import pytest

from rmgl_jax.evaluation.neighbors import nearest_neighbors


def signs(rng, n, width=64):
    """Features whose length and products, and so whose distances and ties, are exact."""
    return rng.choice([-1.0, 1.0], (n, width)).astype(np.float32)


def brute_force(features, k):
    unit = features.astype(float) / np.linalg.norm(features.astype(float), axis=1, keepdims=True)
    distances = np.maximum(2 - 2 * unit @ unit.T, 0)
    farthest = distances.max(axis=1)
    np.fill_diagonal(distances, -1)
    return np.argsort(distances, axis=1, kind="stable")[:, : k + 1], farthest


@pytest.mark.parametrize(("tile", "ks"), [(1, (1, 30)), (5, (1, 4, 30)), (2048, (4, 1000))])
def test_nearest_neighbors_agree_with_full_sort(tile, ks):
    """Among ties and duplicates, for tiles of any size and more neighbors than images."""
    for k in ks:
        rng = np.random.default_rng(k)
        features = signs(rng, 60)
        features[rng.integers(0, 60, 30)] = features[7]
        query, gallery = features[:17], features[17:]
        between = np.empty((17, 43), np.float32)
        indices, distances, farthest = nearest_neighbors((query, gallery), k, between, tile)
        expected, expected_farthest = brute_force(features, k)
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(farthest, expected_farthest)
        others = 2 - 2 * (features[:, None] * features[indices]).sum(-1) / 64
        np.testing.assert_array_equal(distances, others)
        np.testing.assert_array_equal(between, 2 - 2 * query @ gallery.T / 64)


def test_nearest_neighbors_of_many_images():
    """With the default tile: more images than one tile holds, and more neighbors too."""
    features = signs(np.random.default_rng(0), 1500)
    indices, _, _ = nearest_neighbors((features,), 1200)
    np.testing.assert_array_equal(indices, brute_force(features, 1200)[0])


def test_nearest_neighbors_of_equal_images():
    indices, _, farthest = nearest_neighbors((np.ones((5, 4), np.float32),), 2)
    np.testing.assert_array_equal(indices, [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 0, 1], [4, 0, 1]])
    np.testing.assert_array_equal(farthest, np.zeros(5))


def test_nearest_neighbors_of_two_images():
    features = np.eye(2, 3, dtype=np.float32)
    indices, _, farthest = nearest_neighbors((features[:1], features[1:]), 20)
    np.testing.assert_array_equal(indices, [[0, 1], [1, 0]])
    np.testing.assert_array_equal(farthest, [2, 2])
