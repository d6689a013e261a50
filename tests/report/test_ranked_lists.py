"""Ranked lists of the report."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmgl_jax.data.split import Split
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.report.inspection import spread
from rmgl_jax.report.ranked_lists import choose_queries, ranked_lists
from tests.report.tiny_report import BATCH_SIZE, section, visible_text

pytestmark = pytest.mark.network


@pytest.mark.network
def test_lists_on_the_page_are_those_of_the_embeddings(finished):
    query, gallery = finished.seen.query, finished.seen.gallery
    model = finished.run.config.model
    features = [
        embed(model, finished.variables, split.images, batch_size=BATCH_SIZE)
        for split in (query, gallery)
    ]
    distances = np.linalg.norm(features[0][:, None] - features[1][None], axis=2)
    metrics = rank_metrics(distances, query.pids, query.camids, gallery.pids, gallery.camids)
    order = np.argsort(metrics.ap, kind="stable")
    articles = re.findall(
        r'<article class="ranked" data-group="(\w+)" data-ap="(.*?)">(.*?)</article>',
        section(finished.html, "lists"),
        re.DOTALL,
    )
    # 20 queries: 7 in the outer groups, 6 remain for the median.
    assert [group for group, _, _ in articles] == ["worst"] * 7 + ["median"] * 6 + ["best"] * 7
    values = [float(ap) for _, ap, _ in articles]
    assert values == sorted(values)
    np.testing.assert_allclose(values, metrics.ap[order], atol=1e-6)
    for (_, _, article), row in zip(articles, order, strict=True):
        same = gallery.pids == query.pids[row]
        kept = ~(same & (gallery.camids == query.camids[row]))
        expected = [i for i in np.argsort(distances[row], kind="stable") if kept[i]][:10]
        hits = re.findall(r'<li class="hit (\w+)" data-index="(\d+)">(.*?)</li>', article, re.S)
        assert [int(index) for _, index, _ in hits] == expected
        assert f"; {(same & kept).sum()} matching gallery image" in article
        for rank, (frame, index, hit) in enumerate(hits, 1):
            is_match = same[int(index)]
            assert frame == ("match" if is_match else "other")
            assert f"{rank} {'✓' if is_match else '✗'}" in visible_text(hit)
            alt = re.search(r'alt="(.*?)"', hit)[1]
            kind = "match" if is_match else "another identity"
            camera = gallery.camids[int(index)] + 1
            start = f"Rank {rank}, {kind}: identity {gallery.pids[int(index)]}, camera {camera}, "
            assert alt.startswith(start)


def split_of(pids, camids, name="gallery") -> Split:
    return Split(
        images=np.zeros((len(pids), 4, 4, 3), np.uint8),
        pids=np.array(pids, np.int32),
        camids=None if camids is None else np.array(camids, np.int32),
        names=[str(i) for i in range(len(pids))],
        dataset="made",
        version="1",
        split=name,
    )


def test_ranked_lists_leave_out_junk_and_the_own_camera():
    query = split_of([5], [0], "query")
    #               junk, own camera, match, distractor, other, match
    gallery = split_of([-1, 5, 5, 0, 6, 5], [1, 0, 1, 0, 0, 2])
    angle = np.array([0.0, 0.1, 0.3, 0.2, 0.4, 0.3])
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    (found,) = ranked_lists(query, gallery, (features[:1], features), np.array([0.5]))
    assert [hit.index for hit in found.hits] == [3, 2, 5, 4]  # ties in the gallery's order
    assert [hit.rank for hit in found.hits] == [1, 2, 3, 4]
    assert [hit.match for hit in found.hits] == [False, True, True, False]
    assert (found.n_matches, found.group, found.position, found.ap) == (2, "worst", 1, 0.5)
    np.testing.assert_allclose(found.hits[1].distance, 2 * np.sin(0.15), atol=1e-6)


def test_ranked_lists_without_cameras_leave_out_junk_only():
    query, gallery = split_of([5], None, "query"), split_of([-1, 5, 6], None)
    features = np.eye(3, dtype=np.float32)
    (found,) = ranked_lists(query, gallery, (features[:1], features), np.array([1.0]), length=5)
    assert [hit.index for hit in found.hits] == [1, 2]


@given(
    st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=1, max_size=80), st.integers(1, 9)
)
def test_choose_queries_takes_worst_median_and_best(values, size):
    ap = np.array(values)
    chosen = choose_queries(ap, size)
    valid = np.sort(ap[~np.isnan(ap)])
    queries = [query for _, _, query in chosen]
    assert len(set(queries)) == len(queries)
    np.testing.assert_array_equal([valid[position - 1] for _, position, _ in chosen], ap[queries])
    positions = [position for _, position, _ in chosen]
    assert positions == sorted(positions)
    groups = [group for group, _, _ in chosen]
    assert groups == sorted(groups, key=["worst", "median", "best"].index)
    if len(valid) >= 3 * size:
        assert [groups.count(group) for group in ("worst", "median", "best")] == [size] * 3
        middle = [position for group, position, _ in chosen if group == "median"]
        assert abs(np.mean(middle) - (len(valid) + 1) / 2) <= 0.5
    if len(valid):
        assert positions[0] == 1
        assert positions[-1] == len(valid)


def test_spread_keeps_the_ends_in_even_steps():
    assert spread(range(10, 21), 6) == [10, 12, 14, 16, 18, 20]
    assert spread([7, 8], 6) == [7, 8]
