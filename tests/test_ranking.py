import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import InputError
from rmgl_jax.evaluation import distances
from rmgl_jax.evaluation.distances import (
    check_features,
    distance_blocks,
    row_blocks,
    squared_distances,
)
from rmgl_jax.evaluation.ranking import match_ranks, rank_blocks, rank_features, rank_metrics


def brute_force(distances, query_pids, query_camids, gallery_pids, gallery_camids, max_rank):
    """The protocol, image by image, in plain Python: (cmc, per-query values)."""
    first_ranks, values = [], []
    for q, pid in enumerate(query_pids):
        kept = []
        for g in range(len(gallery_pids)):
            same_camera = query_camids is not None and query_camids[q] == gallery_camids[g]
            if gallery_pids[g] == -1 or (gallery_pids[g] == pid and same_camera):
                continue
            kept.append(g)
        kept.sort(key=lambda g: (distances[q][g], g))
        ranks = [r for r, g in enumerate(kept, 1) if gallery_pids[g] == pid]
        first_ranks.append(ranks[0] if ranks else -1)
        if not ranks:
            values.append((np.nan, np.nan, np.nan))
            continue
        step, official = 0.0, 0.0
        for i, r in enumerate(ranks, 1):
            before = 1.0 if r == 1 else (i - 1) / (r - 1)
            step += i / r / len(ranks)
            official += (i / r + before) / 2 / len(ranks)
        values.append((step, official, len(ranks) / ranks[-1]))
    valid = [r for r in first_ranks if r > 0]
    cmc = [sum(r <= k for r in valid) / max(len(valid), 1) for k in range(1, max_rank + 1)]
    return np.array(cmc), np.array(values), np.array(first_ranks)


@st.composite
def problems(draw):
    q, g = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    # Few values, so that ties abound; 0 and infinity are ordinary distances.
    value = st.sampled_from([0.0, 0.25, 0.5, 1.0, np.inf])
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    distances = np.array(draw(st.lists(value, min_size=q * g, max_size=q * g)), dtype)
    pids, cameras = st.integers(-1, 3), st.integers(0, 2)
    labels = [
        draw(st.lists(values, min_size=n, max_size=n))
        for values, n in ((pids, q), (cameras, q), (pids, g), (cameras, g))
    ]
    if draw(st.booleans()):
        labels[1] = labels[3] = None
    return distances.reshape(q, g), *labels, draw(st.integers(1, 15))


def test_rank_metrics_agree_with_brute_force():
    seen = set()

    @given(problems())
    def check(problem):
        cmc, values, first = brute_force(*problem)
        if (first < 0).all():
            seen.add("no valid query")
            with pytest.raises(InputError, match=f"None of the {len(first)} queries"):
                rank_metrics(*problem)
            return
        seen.add("some valid" if (first < 0).any() else "all valid")
        got = rank_metrics(*problem)
        np.testing.assert_array_equal(got.first_match_rank, first)
        np.testing.assert_array_equal(got.cmc, cmc)
        np.testing.assert_allclose(got.ap, values[:, 0], rtol=1e-13)
        np.testing.assert_allclose(got.ap_official, values[:, 1], rtol=1e-13)
        np.testing.assert_array_equal(got.inp, values[:, 2])
        assert got.n_valid_queries == (first > 0).sum()
        means = [got.mean_ap, got.mean_ap_official, got.mean_inp]
        np.testing.assert_allclose(means, np.nanmean(values, axis=0), rtol=1e-13)
        assert got.mean_ap_official <= got.mean_ap + 1e-13

    check()
    assert seen == {"no valid query", "some valid", "all valid"}


@given(problems(), st.data())
def test_match_ranks_do_not_depend_on_sorting(problem, data):
    row = problem[0][0]
    kinds = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(row), max_size=len(row))))
    matches, dropped = np.flatnonzero(kinds == 1), np.flatnonzero(kinds == 2)
    np.testing.assert_array_equal(
        match_ranks(row, matches, dropped, sort_from=0), match_ranks(row, matches, dropped)
    )


def test_rank_metrics_hand_value():
    # Kept order: match, distractor, match; the junk and the same-camera image in front are dropped.
    distances = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    metrics = rank_metrics(distances, [7], [1], [-1, 7, 7, 0, 7], [2, 1, 2, 2, 3], max_rank=3)
    assert metrics.mean_ap == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.mean_ap_official == pytest.approx(((1 + 1) / 2 + (2 / 3 + 1 / 2) / 2) / 2)
    assert metrics.mean_inp == pytest.approx(2 / 3)
    np.testing.assert_array_equal(metrics.cmc, [1, 1, 1])


def test_rank_metrics_order_ties_by_gallery_index():
    pids = [2, 2, 1, 2]
    metrics = rank_metrics(np.zeros((1, 4)), [1], None, pids, None)
    assert metrics.first_match_rank.tolist() == [3]
    for order in itertools.permutations(range(4)):
        permuted = [pids[i] for i in order]
        rank = rank_metrics(np.zeros((1, 4)), [1], None, permuted, None).first_match_rank[0]
        assert rank == permuted.index(1) + 1


def test_rank_metrics_count_matches_beyond_max_rank_in_map_only():
    metrics = rank_metrics(np.array([[0.0, 1.0, 2.0]]), [1], [0], [2, 3, 1], [1, 1, 1], max_rank=2)
    np.testing.assert_array_equal(metrics.cmc, [0, 0])
    assert metrics.mean_ap == pytest.approx(1 / 3)


@pytest.mark.parametrize(("block", "piece"), [(None, 1024), (4, 30), (100, 13)])
def test_rank_features_in_blocks_equal_whole_matrix(block, piece):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(11, 8)), rng.normal(size=(30, 8))
    query, gallery = query.astype(np.float32), gallery.astype(np.float32)
    labels = (
        rng.integers(0, 5, 11),
        rng.integers(0, 3, 11),
        rng.integers(-1, 5, 30),
        rng.integers(0, 3, 30),
    )
    exact = ((query[:, None].astype(float) - gallery[None].astype(float)) ** 2).sum(-1)
    blocks = [tile for _, tile in distance_blocks(query, gallery, block, piece=piece)]
    assert [len(tile) for tile in blocks] == ([4, 4, 3] if block == 4 else [11])
    np.testing.assert_allclose(np.concatenate(blocks), exact, atol=1e-5)
    got = rank_features(query, gallery, *labels, max_rank=7, block=block)
    want = rank_metrics(exact, *labels, max_rank=7)
    for field in ("cmc", "ap", "ap_official", "inp", "first_match_rank"):
        np.testing.assert_array_equal(getattr(got, field), getattr(want, field))


def test_squared_distances_are_not_negative():
    x = np.random.default_rng(0).normal(size=(50, 300)).astype(np.float32)
    assert (np.asarray(squared_distances(x, x)) >= 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rank_features_reject_values_that_are_not_finite(value, monkeypatch):
    # Small tiles, so that the row is found in a later one.
    monkeypatch.setattr(distances, "TILE_BYTES", 64)
    good, bad = np.ones((5, 4), np.float32), np.ones((9, 4), np.float32)
    bad[6, 2] = bad[8, 0] = value
    with pytest.raises(InputError, match=r"gallery features .* row 6"):
        rank_features(good, bad, [1] * 5, None, [1] * 9, None)
    with pytest.raises(InputError, match=r"query features .* row 6"):
        rank_features(bad, good, [1] * 9, None, [1] * 5, None)


def test_rank_metrics_reject_nan():
    nan = np.zeros((4, 3))
    nan[2, 1] = np.nan
    with pytest.raises(InputError, match="NaN in row 2"):
        rank_metrics(nan, [1] * 4, None, [1] * 3, None)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"distances": np.zeros(3)}, ValueError, r"matrix \[Q, G\], got shape \(3,\)"),
        ({"distances": np.zeros((1, 2), int)}, TypeError, "floating-point numbers, got int64"),
        ({"query_pids": [1, 2]}, ValueError, r"query pids must have shape \(1,\), got \(2,\)"),
        ({"gallery_pids": [1]}, ValueError, r"gallery pids must have shape \(2,\), got \(1,\)"),
        ({"gallery_pids": [1.0, 2.0]}, TypeError, "gallery pids must be integers, got float64"),
        ({"gallery_camids": [1]}, ValueError, r"gallery camera ids must have shape \(2,\)"),
        ({"gallery_camids": None}, ValueError, "query alone"),
        ({"query_camids": None}, ValueError, "gallery alone"),
        ({"max_rank": 0}, ValueError, "max_rank .* 0"),
    ],
)
def test_rank_metrics_reject_invalid_arguments(change, error, message):
    arguments = {
        "distances": np.zeros((1, 2)),
        "query_pids": [1],
        "query_camids": [0],
        "gallery_pids": [1, 2],
        "gallery_camids": [1, 1],
    }
    with pytest.raises(error, match=message):
        rank_metrics(**arguments | change)


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (np.zeros(3, np.float32), ValueError, r"got shape \(3,\)"),
        (np.zeros((0, 3), np.float32), ValueError, r"got shape \(0, 3\)"),
        (np.zeros((2, 3), np.uint8), TypeError, "floating-point numbers, got uint8"),
    ],
)
def test_check_features_rejects_other_arrays(features, error, message):
    with pytest.raises(error, match=f"The query features must be .*{message}"):
        check_features("query features", features)


def test_rank_features_reject_different_widths():
    with pytest.raises(ValueError, match="same width, got 3 and 4"):
        rank_features(np.ones((1, 3)), np.ones((1, 4)), [1], None, [1], None)


def test_row_blocks_cover_all_rows_once():
    assert row_blocks(7, 10, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert len(row_blocks(11_659, 82_161)) > 10
    with pytest.raises(ValueError, match="at least 1 row, got 0"):
        row_blocks(7, 10, 0)


def test_rank_blocks_must_be_all_queries_in_order():
    labels = [1] * 4, None, [1] * 3, None
    block = np.zeros((2, 3))
    whole = rank_blocks([(slice(0, 2), block), (slice(2, 4), block)], *labels)
    assert whole.n_valid_queries == 4
    with pytest.raises(ValueError, match="of 4 queries, got 2"):
        rank_blocks([(slice(0, 2), block)], *labels)
    with pytest.raises(ValueError, match=r"from 0 on .* from 2 to 4"):
        rank_blocks([(slice(2, 4), block)], *labels)
    with pytest.raises(ValueError, match=r"3 gallery images, got shape \(2, 4\)"):
        rank_blocks([(slice(0, 2), np.zeros((2, 4)))], *labels)
    nan = np.array([[0.0] * 3, [np.nan] * 3])
    with pytest.raises(InputError, match="NaN in row 3"):
        rank_blocks([(slice(0, 2), block), (slice(2, 4), nan)], *labels)
