"""Exact search finds what sorting all inner products finds."""

import numpy as np
import pytest

from data_prep.errors import InputError
from rmgl_jax.evaluation import retrieval
from rmgl_jax.evaluation.retrieval import FlatIndex

WIDTH = 24


def embeddings(count, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def _pieces_of_sixteen_rows(monkeypatch):
    monkeypatch.setattr(retrieval, "_PIECE_BYTES", 16 * 4 * WIDTH)


def by_sorting(queries, gallery, k):
    scores = queries @ gallery.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, axis=1)


@pytest.mark.parametrize(("count", "k"), [(1, 1), (16, 10), (17, 10), (100, 10), (100, 30)])
def test_search_finds_the_greatest_inner_products(count, k):
    queries, gallery = embeddings(3, seed=1), embeddings(count)
    found = FlatIndex.build(gallery).search(queries, k)
    indices, similarities = by_sorting(queries, gallery, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.similarities, similarities, atol=1e-6)


def test_search_returns_the_whole_gallery_if_it_has_no_more():
    found = FlatIndex.build(embeddings(20)).search(embeddings(2, seed=1), 50)
    assert found.indices.shape == (2, 20)
    np.testing.assert_array_equal(np.sort(found.indices), np.arange(20)[None].repeat(2, 0))


def test_search_puts_the_first_of_equal_embeddings_first():
    gallery = embeddings(3).repeat(20, axis=0)
    found = FlatIndex.build(gallery).search(gallery[20:21], 20)
    np.testing.assert_array_equal(found.indices, np.arange(20, 40)[None])


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 1e-3), ("int8", 2e-2)])
def test_search_of_fewer_bits_has_their_error_only(precision, tolerance):
    queries, gallery = embeddings(5, seed=1), embeddings(70)
    index = FlatIndex.build(gallery, precision)
    found = index.search(queries, 70)
    assert {values.dtype for values, _ in index.pieces} == {np.dtype(precision)}
    exact = np.take_along_axis(queries @ gallery.T, found.indices, axis=1)
    np.testing.assert_allclose(found.similarities, exact, atol=tolerance)


def test_build_refuses_other_precisions():
    with pytest.raises(InputError, match=r"precision.*'float64'"):
        FlatIndex.build(embeddings(20), "float64")


def test_build_takes_parts():
    queries, gallery = embeddings(3, seed=1), embeddings(50)
    whole = FlatIndex.build(gallery, "int8").search(queries, 7)
    index = FlatIndex.build((gallery[i : i + 20] for i in range(0, 50, 20)), "int8")
    assert len(index) == 50
    found = index.search(queries, 7)
    np.testing.assert_array_equal(found.indices, whole.indices)
    np.testing.assert_allclose(found.similarities, whole.similarities, atol=1e-6)


def test_build_and_search_reject_other_input():
    index = FlatIndex.build(embeddings(5))
    with pytest.raises(InputError, match=rf"12.*{WIDTH}"):
        index.search(embeddings(2)[:, :12])
    with pytest.raises(InputError, match="0"):
        index.search(embeddings(2), 0)
    with pytest.raises(InputError, match="NaN"):
        FlatIndex.build(np.full((2, WIDTH), np.nan, np.float32))
    with pytest.raises(InputError, match="at least one"):
        FlatIndex.build([])
    with pytest.raises(InputError, match=r"12, 24"):
        FlatIndex.build([embeddings(5), embeddings(5)[:, :12]])
