import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.evaluation.result import EvaluationResult, Reranked, measures, print_results


def metrics(seed, max_rank=50):
    rng = np.random.default_rng(seed)
    # The last query has no match.
    query_pids = [*rng.integers(0, 4, 11), 99]
    return rank_metrics(
        rng.random((12, 40), np.float32),
        query_pids,
        None,
        rng.integers(0, 4, 40),
        None,
        max_rank,
    )


def result(**changes):
    fields = {
        "dataset": "market1501",
        "version": "1.0.0",
        "n_query": 12,
        "n_gallery": 15_913,
        "n_ids": 5,
        "flipped": True,
        "same_camera_rule": True,
        "plain": metrics(0),
        "reranked": Reranked(metrics(1), 20, 6, 0.3),
        "checkpoint": "runs/a",
        "step": "1200",
    }
    return EvaluationResult(**fields | changes)


def assert_same(a, b):
    for field in dataclasses.fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if dataclasses.is_dataclass(x):
            assert_same(x, y)
        elif isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
        else:
            assert x == y


def printed(*arguments, width=160, **keywords):
    console = Console(file=io.StringIO(), width=width)
    print_results(*arguments, console=console, **keywords)
    return console.file.getvalue()


@pytest.mark.parametrize("changes", [{}, {"reranked": None, "checkpoint": None, "step": None}])
def test_json_round_trip(changes):
    original = result(**changes)
    text = original.to_json()
    assert_same(original, EvaluationResult.from_json(text))
    saved = json.loads(text)
    assert saved["flipped"] is True
    assert saved["plain"]["mean_ap_step"] == original.plain.mean_ap
    assert saved["plain"]["mean_ap_official"] == original.plain.mean_ap_official
    assert saved["plain"]["per_query"]["ap"][-1] is None
    assert (saved["version"], saved["n_query"], saved["n_valid_queries"]) == ("1.0.0", 12, 11)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "a", "n_valid_queries": 1}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="This is not an evaluation result"):
        EvaluationResult.from_json(text)


def test_a_reranked_result_needs_the_plain_one():
    with pytest.raises(TypeError, match=r"needs its plain RankMetrics, got .*NoneType"):
        result(plain=None)
    with pytest.raises(TypeError, match="plain"):
        EvaluationResult(
            "market1501", "1.0.0", 12, 40, 5, True, True, reranked=Reranked(metrics(1), 20, 6, 0.3)
        )


def test_counts_must_agree():
    with pytest.raises(ValueError, match="13 queries got metrics of 12"):
        result(n_query=13)


def test_measures_beyond_a_short_curve_are_left_out():
    short = measures(metrics(0, max_rank=7))
    assert "rank-10" not in short
    assert short["rank-5"] == 100 * metrics(0).cmc[4]


def test_table_says_what_is_shown():
    shown = printed([result(), result(flipped=False, same_camera_rule=False, reranked=None)])
    for text in (
        "market1501 1.0.0",
        "12 queries of 5 identities, 15,913 gallery images",
        "left out for having no match: 1 of the queries",
        "flipped, not re-ranked",
        "re-ranking: k1 20, k2 6, lambda 0.3",
        "flipped, re-ranked",
        "not flipped, not re-ranked",
        "no camera ids",
        "runs/a, step 1200",
        "(step)",
        "(official)",
        "mINP",
        f"{100 * metrics(0).mean_ap:.2f}",
        f"{100 * metrics(0).mean_ap_official:.2f}",
        f"{100 * metrics(1).mean_ap:.2f}",
    ):
        assert text in shown
    lines = shown.splitlines()
    plain = next(i for i, line in enumerate(lines) if "not re-ranked" in line)
    reranked = next(i for i, line in enumerate(lines) if "flipped, re-ranked" in line)
    assert plain < reranked


@pytest.mark.parametrize("flipped", [True, False])
def test_table_says_whether_it_was_flipped(flipped):
    assert ("not flipped" in printed([result(flipped=flipped)])) is not flipped


def test_reference_stands_below_its_result():
    reference = {
        "market1501": {"rank-1": 11.11, "mAP": 22.22},
        "market1501 re-ranked": {"mAP (official)": 33.33},
        "msmt17": {"rank-1": 44.44},
    }
    lines = printed([result()], reference, reference_name="Table II").splitlines()
    row = {
        name: next(i for i, line in enumerate(lines) if name in line)
        for name in ("flipped, not", "11.11", "22.22", "flipped, re-", "33.33")
    }
    assert "Table II, not re-ranked" in lines[row["11.11"]]
    assert "Table II, re-ranked" in lines[row["33.33"]]
    assert row["flipped, not"] < row["11.11"] == row["22.22"] < row["flipped, re-"] < row["33.33"]
    assert "not said" in "\n".join(lines)
    assert not any("44.44" in line for line in lines)
    with pytest.raises(ValueError, match="got rank1"):
        print_results([result()], {"market1501": {"rank1": 1.0}})


def test_numbers_are_whole_on_a_narrow_terminal():
    shown = printed([result()], width=80)
    assert "…" not in shown
    assert f"{100 * metrics(0).mean_inp:.2f}" in shown
