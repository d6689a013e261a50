"""Thresholds for "same person?" at false positive rates, with intervals over persons."""

import numpy as np
import pytest

from data_prep.errors import InputError
from rmgl_jax.evaluation.calibration import Calibration, OperatingPoint, calibrate


def labeled(n_persons=40, images=3, width=16, noise=0.6, seed=0):
    """Unit embeddings of persons on two cameras: queries on one, gallery on both."""
    random = np.random.default_rng(seed)
    centers = random.normal(size=(n_persons, width))

    def images_of(count):
        pids = np.repeat(np.arange(1, n_persons + 1), count)
        rows = centers[pids - 1] + noise * random.normal(size=(len(pids), width))
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit.astype(np.float32), pids, np.arange(len(pids)) % 2

    queries, query_pids, _ = images_of(1)
    gallery, gallery_pids, gallery_camids = images_of(images)
    return [queries, gallery, query_pids, np.zeros_like(query_pids), gallery_pids, gallery_camids]


def brute_force(queries, gallery, query_pids, query_camids, gallery_pids, gallery_camids, rate):
    """The smallest score with at most `rate` of the negatives above, and the true positive rate."""
    positive, negative = [], []
    for q, query in enumerate(queries):
        for g, image in enumerate(gallery):
            score = query @ image
            if min(query_pids[q], gallery_pids[g]) < 1:
                continue
            if query_pids[q] != gallery_pids[g]:
                negative.append(score)
            elif query_camids[q] != gallery_camids[g]:
                positive.append(score)
    positive, negative = np.array(positive), np.array(negative)
    allowed = [score for score in np.unique(negative) if np.mean(negative > score) <= rate]
    return min(allowed), np.mean(positive > min(allowed)), len(positive), len(negative)


@pytest.mark.parametrize("rate", [0.3, 0.02, 0.01])
def test_calibrate_equals_brute_force(rate):
    data = labeled()
    threshold, tpr, n_positive, n_negative = brute_force(*data, rate)
    found = calibrate(*data, [rate], dataset="own", digest="0a", flip=False, dim=16, replicates=9)
    assert found.threshold(rate) == pytest.approx(threshold, abs=1e-6)
    assert found.point(rate).tpr == pytest.approx(tpr)
    assert (found.n_persons, found.n_positive, found.n_negative) == (40, n_positive, n_negative)
    assert (found.dataset, found.digest, found.flip, found.dim) == ("own", "0a", False, 16)


def test_calibrate_leaves_out_junk_and_distractors():
    data = labeled()
    expected = calibrate(*data, [0.02], replicates=9)
    random = np.random.default_rng(1)
    others = random.choice(data[0], 30) + np.float32(0.01)
    with_others = [
        data[0],
        np.concatenate([others, data[1]]),
        *data[2:4],
        np.concatenate([np.repeat([0, -1], 15), data[4]]),
        np.concatenate([np.ones(30, int), data[5]]),
    ]
    assert calibrate(*with_others, [0.02], replicates=9) == expected


def test_calibrate_takes_pid_0_for_a_person_if_a_query_has_it():
    """MSMT17, and own images, may number persons from 0."""
    data = labeled()
    expected = calibrate(*data, [0.02], replicates=9)
    data[2], data[4] = data[2] - 1, data[4] - 1
    assert calibrate(*data, [0.02], replicates=9) == expected


def test_calibrate_without_cameras_takes_all_pairs():
    data = labeled()
    data[3] = data[5] = None
    assert calibrate(*data, [0.02], replicates=9).n_positive == 40 * 3


def test_calibrate_intervals_do_not_shrink_with_images_of_the_same_persons():
    """Copies of the images are more pairs, but no more persons."""
    data = labeled(images=2)
    expected = calibrate(*data, [0.02]).point(0.02)
    copies = [np.repeat(column, 4, axis=0) for column in data]
    found = calibrate(*copies, [0.02])
    point = found.point(0.02)
    assert (found.n_persons, found.n_negative) == (40, 16 * 40 * 39 * 2)
    np.testing.assert_allclose(point.threshold_interval, expected.threshold_interval, atol=1e-6)
    np.testing.assert_allclose(point.tpr_interval, expected.tpr_interval, atol=1e-6)
    low, high = point.threshold_interval
    assert low < point.threshold < high


def test_calibrate_intervals_cover_thresholds_of_other_persons():
    """The threshold of a large set lies in nearly all intervals of small sets."""
    truth = calibrate(*labeled(600, seed=99), [0.01], replicates=2).threshold(0.01)
    covered = 0
    for seed in range(30):
        point = calibrate(*labeled(60, seed=seed), [0.01], replicates=100).point(0.01)
        covered += point.threshold_interval[0] <= truth <= point.threshold_interval[1]
    assert covered >= 25


def test_calibrate_marks_rates_that_the_persons_cannot_resolve():
    found = calibrate(*labeled(), [1e-5, 1e-2, 1e-3], replicates=9)
    # 40 persons x 3 images: 4,680 pairs, of which the rate 0.001 takes 4.
    assert [point.fpr for point in found.points] == [1e-2]
    assert found.unresolved == (1e-3, 1e-5)
    with pytest.raises(InputError, match=r"0\.001 .* 40 persons"):
        found.threshold(1e-3)
    with pytest.raises(InputError, match=r"0\.5 was not measured.* 0\.01"):
        found.threshold(0.5)
    with pytest.raises(InputError, match=r"4 persons"):
        calibrate(*labeled(4), [0.1, 0.01])


def test_calibrate_rejects_what_it_cannot_measure():
    data = labeled()
    for rates in ([], [0.0], [1.0, 0.1], [-0.1], [0.5, np.nan, 0.1]):
        with pytest.raises(InputError, match="above 0 and below 1"):
            calibrate(*data, rates)
    with pytest.raises(InputError, match=r"own .* different persons"):
        calibrate(*labeled(1), dataset="own")
    data[4] = data[4] + 1000
    with pytest.raises(InputError, match=r"own .* same person"):
        calibrate(*data, dataset="own")


def test_calibration_json_round_trip():
    found = calibrate(*labeled(), [1e-2, 1e-5], replicates=9, dim=8)
    assert Calibration.from_json(found.to_json()) == found
    assert isinstance(found.points[0], OperatingPoint)
    for text in ("", "{}", "[]", found.to_json().replace("threshold_interval", "interval")):
        with pytest.raises(InputError):
            Calibration.from_json(text)


def test_calibration_applies_to_its_embedding():
    found = calibrate(*labeled(), [1e-2], replicates=9, digest="0a")
    assert found.applies_to("0a", True)
    assert not found.applies_to("0a", False)
    assert not found.applies_to("0b", True)


def test_calibrate_samples_persons_with_all_their_pairs():
    """One bootstrap sample equals the set in which each person stands as often as it was drawn."""
    data = labeled()
    n = 40
    (drawn,) = np.random.default_rng(5).multinomial(n, np.ones(n) / n, 1)
    queries, gallery, query_pids, query_camids, gallery_pids, gallery_camids = data
    scores = queries @ gallery.T
    weights = np.outer(drawn[query_pids - 1], drawn[gallery_pids - 1])
    different = query_pids[:, None] != gallery_pids
    negative = np.repeat(scores[different], weights[different])
    allowed = [score for score in np.unique(negative) if np.mean(negative > score) <= 0.02]
    pair = ~different & (query_camids[:, None] != gallery_camids)
    of_person = np.broadcast_to(drawn[query_pids - 1][:, None], scores.shape)
    positive = np.repeat(scores[pair], of_person[pair])
    point = calibrate(*data, [0.02], replicates=1, seed=5).point(0.02)
    assert point.threshold_interval == pytest.approx((min(allowed),) * 2, abs=1e-6)
    assert point.tpr_interval == pytest.approx((np.mean(positive > min(allowed)),) * 2)
