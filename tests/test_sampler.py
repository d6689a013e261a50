import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import InputError
from rmgl_jax.data.sampler import identity_batches, steps_per_epoch


@st.composite
def problems(draw):
    """Random label distributions, some with one very frequent identity, and P and K for them."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    sizes += draw(st.lists(st.integers(10, 60), max_size=2))
    persons = draw(st.integers(1, len(sizes)))
    images = draw(st.integers(1, 5))
    # Labels need be neither sorted nor contiguous.
    names = draw(st.permutations(range(-3, 3 * len(sizes) - 3, 3)))
    labels = np.repeat(names, sizes)
    np.random.default_rng(draw(st.integers(0, 99))).shuffle(labels)
    return labels, persons, images


seeds = st.integers(0, 2**31)
epochs = st.integers(0, 1000)


@given(problems(), seeds, epochs)
def test_identity_batches_hold_p_identities_with_k_images_each(problem, seed, epoch):
    labels, persons, images = problem
    batches = identity_batches(labels, persons, images, seed, epoch)
    assert batches.dtype == np.int64
    assert batches.shape == (steps_per_epoch(labels, persons, images), persons * images)
    grouped = labels[batches].reshape(-1, persons, images)
    assert (grouped == grouped[:, :, :1]).all()
    for row in grouped[:, :, 0]:
        assert len(set(row)) == persons


@given(problems(), seeds, epochs)
def test_identity_batches_of_an_epoch_hold_all_images(problem, seed, epoch):
    labels, persons, images = problem
    batches = identity_batches(labels, persons, images, seed, epoch)
    np.testing.assert_array_equal(np.unique(batches), np.arange(len(labels)))


@given(problems(), seeds, epochs)
def test_identity_batches_repeat_images_only_if_necessary(problem, seed, epoch):
    labels, persons, images = problem
    batches = identity_batches(labels, persons, images, seed, epoch)
    counts = np.bincount(batches.ravel(), minlength=len(labels))
    for label in np.unique(labels):
        own = counts[labels == label]
        assert own.max() - own.min() <= 1
        for chunk in batches.reshape(-1, images)[labels[batches[:, ::images]].ravel() == label]:
            assert len(set(chunk)) == min(images, len(own))


@given(problems())
def test_steps_per_epoch_is_the_minimum_that_holds_all_images(problem):
    labels, persons, images = problem
    chunks = [math.ceil(n / images) for n in np.unique(labels, return_counts=True)[1]]
    expected = max(math.ceil(sum(chunks) / persons), max(chunks))
    assert steps_per_epoch(labels, persons, images) == expected


@given(problems(), seeds, epochs)
def test_identity_batches_of_all_processes_concatenate_to_the_global_batch(problem, seed, epoch):
    labels, persons, images = problem
    whole = identity_batches(labels, persons, images, seed, epoch)
    for count in (c for c in range(1, persons + 1) if persons % c == 0):
        parts = [
            identity_batches(labels, persons, images, seed, epoch, i, count) for i in range(count)
        ]
        assert all(part.shape[1] == whole.shape[1] // count for part in parts)
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_identity_batches_depend_on_seed_and_epoch_only():
    labels = np.repeat(np.arange(30), 7)
    first = identity_batches(labels, 6, 4, seed=1, epoch=2)
    np.testing.assert_array_equal(first, identity_batches(labels, 6, 4, seed=1, epoch=2))
    assert (first != identity_batches(labels, 6, 4, seed=2, epoch=1)).any()
    assert (first != identity_batches(labels, 6, 4, seed=1, epoch=3)).any()


def test_steps_per_epoch_is_the_same_for_all_epochs():
    labels = np.repeat(np.arange(40), np.arange(1, 41))
    lengths = {len(identity_batches(labels, 12, 4, seed=3, epoch=e)) for e in range(20)}
    assert lengths == {steps_per_epoch(labels, 12, 4)}


def test_identity_batches_first_batch_is_pinned():
    # A change here gives a resumed run other batches than the uninterrupted one.
    labels = np.repeat(np.arange(5), (1, 2, 3, 4, 9))
    batch = identity_batches(labels, 3, 2, seed=0, epoch=0)[0]
    assert batch.tolist() == [0, 0, 12, 18, 2, 1]


def test_steps_per_epoch_grows_with_a_dominant_identity():
    labels = np.array([0] * 40 + [1, 1, 2, 2, 3])
    batches = identity_batches(labels, 2, 4, seed=0, epoch=0)
    assert len(batches) == 10
    seen = labels[batches.reshape(10, 2, 4)[:, :, 0]]
    assert (seen == 0).any(axis=1).all()
    counts = np.bincount(seen.ravel())[1:]
    assert counts.sum() == 10
    assert counts.max() - counts.min() <= 1


def test_identity_batches_mix_identities_and_slots_uniformly():
    labels = np.repeat(np.arange(60), 8)
    together = np.zeros((60, 60))
    slots = np.zeros((60, 6))
    for epoch in range(100):
        for row in labels[identity_batches(labels, 6, 4, 0, epoch)[:, ::4]]:
            together[np.ix_(row, row)] += 1
            slots[row, np.arange(6)] += 1
    np.fill_diagonal(together, np.nan)
    # 2 appearances an epoch, each with 5 of 59 others.
    expected = 100 * 2 * 5 / 59
    assert abs(np.nanmean(together) - expected) < 1e-9
    assert np.nanmax(np.abs(together - expected)) < 6 * math.sqrt(expected)
    assert np.abs(slots - 200 / 6).max() < 6 * math.sqrt(200 / 6)


def test_identity_batches_spread_frequent_identities_over_the_epoch():
    # Uniform draws that ignore the remaining slots would concentrate them at its end.
    labels = np.repeat(np.arange(40), [80] * 4 + [8] * 36)
    early = []
    for epoch in range(200):
        rows = labels[identity_batches(labels, 4, 4, 0, epoch)[:, ::4]]
        early.append((rows[: len(rows) // 2] < 4).sum() / (rows < 4).sum())
    assert abs(np.mean(early) - 0.5) < 0.02


def test_identity_batches_rejects_fewer_identities_than_a_batch_needs():
    with pytest.raises(InputError, match=r"\b12\b.*\b20\b.*\b5\b"):
        identity_batches(np.repeat(np.arange(5), 4), 12, 4, 0, 0)
    with pytest.raises(InputError, match=r"\b0\b"):
        steps_per_epoch(np.array([], np.int32), 1, 4)


@pytest.mark.parametrize(("index", "count"), [(0, 5), (0, 0), (3, 3), (-1, 3)])
def test_identity_batches_rejects_invalid_processes(index, count):
    with pytest.raises(ValueError, match=f"got {index if count == 3 else count}"):
        identity_batches(np.repeat(np.arange(12), 4), 12, 4, 0, 0, index, count)


def test_identity_batches_rejects_invalid_labels_and_batch_sizes():
    labels = np.repeat(np.arange(5), 4)
    with pytest.raises(InputError, match=r"\b0\b.*\b4\b"):
        identity_batches(labels, 0, 4, 0, 0)
    with pytest.raises(InputError, match=r"\b2\b.*\b0\b"):
        steps_per_epoch(labels, 2, 0)
    with pytest.raises(ValueError, match="float64"):
        identity_batches(labels.astype(float), 2, 2, 0, 0)
    with pytest.raises(ValueError, match=r"\(20, 1\)"):
        identity_batches(labels[:, None], 2, 2, 0, 0)
