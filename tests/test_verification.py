import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import InputError
from rmgl_jax.evaluation.verification import verification_blocks, verification_metrics


def brute_force(distances, query_pids, query_camids, gallery_pids, gallery_camids, rate):
    """The best true positive rate of all thresholds that keep to the false positive rate."""
    positive, negative = [], []
    for q, pid in enumerate(query_pids):
        for g, other in enumerate(gallery_pids):
            if other == -1:
                continue
            if other != pid:
                negative.append(distances[q][g])
            elif query_camids is None or query_camids[q] != gallery_camids[g]:
                positive.append(distances[q][g])
    best = 0.0
    for threshold in [*positive, *negative]:
        for accepted in (lambda d, t=threshold: d < t, lambda d, t=threshold: d <= t):
            if sum(map(accepted, negative)) <= rate * len(negative) + 1e-9:
                best = max(best, sum(map(accepted, positive)) / len(positive))
    return best, len(positive), len(negative)


@st.composite
def problems(draw):
    q, g = draw(st.integers(1, 5)), draw(st.integers(2, 9))
    value = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
    distances = np.array(draw(st.lists(value, min_size=q * g, max_size=q * g))).reshape(q, g)
    pids, cameras = st.integers(-1, 2), st.integers(0, 1)
    labels = [
        draw(st.lists(values, min_size=n, max_size=n))
        for values, n in ((pids, q), (cameras, q), (pids, g), (cameras, g))
    ]
    if draw(st.booleans()):
        labels[1] = labels[3] = None
    return distances, *labels


@given(problems(), st.sampled_from([0, 2**22]))
def test_verification_agrees_with_brute_force(problem, buffer):
    rates = (0.0, 0.1, 0.29, 0.5, 0.9)
    distances, *labels = problem
    blocks = ((slice(i, i + 1), distances[i : i + 1]) for i in range(len(distances)))
    try:
        got = verification_blocks(blocks, *labels, rates, buffer)
    except InputError as error:
        assert "no pair of" in str(error)  # noqa: PT017
        return
    for rate, tpr in zip(rates, got.true_positive_rates, strict=True):
        expected, n_positive, n_negative = brute_force(*problem, rate)
        assert tpr == expected
        assert (got.n_positive, got.n_negative) == (n_positive, n_negative)


def test_verification_hand_value():
    # Of 100 negatives at 1, ..., 100 the 29 nearest are accepted: below 30, half the positives.
    # 0.29 * 100 is 28.999999999999996.
    distances = np.array([[*range(1, 101), 29.5, 30.0]], float)
    pids = [2] * 100 + [1, 1]
    got = verification_metrics(distances, [1], None, pids, None, [0.02, 0.29])
    assert got.thresholds.tolist() == [3.0, 30.0]
    assert got.true_positive_rates.tolist() == [0.0, 0.5]


def test_verification_blocks_equal_whole_matrix():
    rng = np.random.default_rng(0)
    distances = rng.random((20, 300), np.float32)
    labels = rng.integers(0, 5, 20), None, rng.integers(-1, 5, 300), None
    whole = verification_metrics(distances, *labels)
    blocks = [(slice(i, i + 4), distances[i : i + 4]) for i in range(0, 20, 4)]
    parts = verification_blocks(blocks, *labels)
    np.testing.assert_array_equal(parts.true_positive_rates, whole.true_positive_rates)
    np.testing.assert_array_equal(parts.thresholds, whole.thresholds)
    assert (np.diff(whole.true_positive_rates) >= 0).all()


@pytest.mark.parametrize(
    ("query_pids", "gallery_pids", "rates", "message"),
    [
        ([1], [1, 1], [0.1], "no pair of different persons"),
        ([1], [2, 3], [0.1], "no pair of the same person"),
        ([1], [1, 2], [1.0], "at least 0 and below 1"),
        ([1], [1, 2], [-0.1], "at least 0 and below 1"),
        ([1, 2], [1, 2], [0.1], r"query pids must have shape \(1,\)"),
    ],
)
def test_verification_rejects_invalid_arguments(query_pids, gallery_pids, rates, message):
    with pytest.raises(ValueError, match=message):
        verification_metrics(np.zeros((1, 2)), query_pids, None, gallery_pids, None, rates)
