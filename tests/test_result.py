import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from data_prep.errors import InputError
from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.evaluation.result import (
    EvaluationResult,
    Expanded,
    PartScores,
    Reranked,
    measures,
    print_results,
)
from rmgl_jax.evaluation.verification import verification_metrics
from tests.flipped_bits import assert_flips_are_noticed
from tests.trees import assert_trees_close


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


def printed(*arguments, width=160, **keywords):
    console = Console(file=io.StringIO(), width=width)
    print_results(*arguments, console=console, **keywords)
    return console.file.getvalue()


VERIFICATION = verification_metrics(np.array([[1.0, 2.0, 3.0]]), [1], None, [1, 1, 2], None)


@pytest.mark.parametrize(
    "changes",
    [
        {"expanded": Expanded(metrics(2), 5, 3.0), "verification": VERIFICATION, "digest": "abc"},
        {"reranked": None, "checkpoint": None, "step": None},
        {"parts": (PartScores("all", "all", 512, 0.5, 0.25, 0.24, 1.0),)},
    ],
)
def test_json_round_trip(changes):
    original = result(**changes)
    text = original.to_json()
    loaded = EvaluationResult.from_json(text)
    assert loaded.to_json() == text
    assert loaded.parts == original.parts
    for name in ("plain", "reranked", "expanded", "verification"):
        before, after = getattr(original, name), getattr(loaded, name)
        assert type(before) is type(after)
        if before is not None:
            before, after = (vars(getattr(item, "metrics", item)) for item in (before, after))
            assert_trees_close(after, before)
    assert loaded.plain.first_match_rank.dtype == original.plain.first_match_rank.dtype
    saved = json.loads(text)
    assert saved["flipped"] is True
    assert saved["plain"]["mean_ap"] == original.plain.mean_ap
    assert saved["plain"]["mean_ap_official"] == original.plain.mean_ap_official
    assert saved["plain"]["per_query"]["ap"][-1] is None
    assert (saved["version"], saved["n_query"], saved["n_valid_queries"]) == ("1.0.0", 12, 11)


def test_json_of_version_0_1_is_read():
    text = result().to_json()
    tree = json.loads(text)
    del tree["file_digest"]
    earlier = json.dumps(tree).replace('"mean_ap"', '"mean_ap_step"')
    assert EvaluationResult.from_json(earlier).to_json() == text


COMPLETE = {
    "expanded": Expanded(metrics(2), 5, 3.0),
    "verification": VERIFICATION,
    "trained_on": "market1501",
    "digest": "abc",
    "data_digest": "0123 4567",
}


def test_json_with_a_flipped_bit_is_rejected_or_the_same():
    text = result(**COMPLETE).to_json()

    def read(path):
        return EvaluationResult.from_json(path.read_text()).to_json()

    assert_flips_are_noticed(text.encode(), read, text)


@pytest.mark.parametrize("field", sorted(vars(result())))
@pytest.mark.parametrize("value", [math.nan, "x", [], {}, -0.5])
def test_json_with_a_field_of_another_type_is_rejected(field, value):
    tree = json.loads(result(**COMPLETE).to_json())
    del tree["file_digest"]
    if isinstance(tree[field], str) and value == "x" and field != "step":
        value = 3  # A text is no other type there.
    tree[field] = value
    with pytest.raises(InputError, match="evaluation result"):
        EvaluationResult.from_json(json.dumps(tree))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("plain", "mean_ap"), "0.5"),
        (("plain", "cmc"), []),
        (("plain", "cmc"), ["x"]),
        (("plain", "cmc"), [10**400]),
        (("plain", "per_query", "inp"), [0.5]),
        (("plain", "n_valid_queries"), None),
        (("reranked", "k1"), "x"),
        (("reranked", "metrics", "mean_inp"), [1]),
        (("expanded", "alpha"), None),
        (("verification", "thresholds"), []),
        (("verification", "true_positive_rates"), ["x"] * 4),
        (("verification", "n_positive"), "many"),
    ],
)
def test_json_with_an_inner_value_of_another_type_is_rejected(place, value):
    tree = json.loads(result(**COMPLETE).to_json())
    del tree["file_digest"]
    *parents, name = place
    inner = tree
    for parent in parents:
        inner = inner[parent]
    assert name in inner
    inner[name] = value
    with pytest.raises(InputError, match="evaluation result"):
        EvaluationResult.from_json(json.dumps(tree))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"dataset": "a", "n_valid_queries": 1}'])
def test_other_json_is_rejected(text):
    with pytest.raises(InputError, match="evaluation result"):
        EvaluationResult.from_json(text)


def test_result_requires_plain_metrics():
    with pytest.raises(TypeError, match=r"plain .*NoneType"):
        result(plain=None)


def test_result_rejects_metrics_of_other_queries():
    with pytest.raises(ValueError, match=r"13.* 12 queries"):
        result(n_query=13)


def test_measures_end_with_the_curve():
    short = measures(metrics(0, max_rank=7))
    assert "rank-10" not in short
    assert short["rank-5"] == 100 * metrics(0).cmc[4]


def test_table_shows_dataset_settings_and_metrics():
    shown = printed([result(), result(flipped=False, same_camera_rule=False, reranked=None)])
    for text in (
        "market1501 1.0.0",
        "12 queries of 5 identities, 15,913 gallery images",
        "without a match, not counted: 1",
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


def test_table_shows_flip():
    assert "not flipped" not in printed([result(flipped=True)])
    assert "not flipped" in printed([result(flipped=False)])


def test_table_shows_reference_below_its_result():
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
    assert "unspecified" in "\n".join(lines)
    assert not any("44.44" in line for line in lines)
    with pytest.raises(ValueError, match="got rank1"):
        print_results([result()], {"market1501": {"rank1": 1.0}})


def test_table_shows_all_digits_on_a_narrow_terminal():
    shown = printed([result()], width=80)
    assert "…" not in shown
    assert f"{100 * metrics(0).mean_inp:.2f}" in shown
