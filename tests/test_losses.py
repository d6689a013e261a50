"""Losses against plain loops, in value and in gradient.

They are compiled as in training: one program takes less time than the programs of its operations.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmgl_jax.config import LossConfig, ModelConfig
from rmgl_jax.models.rmgl import feature_layout
from rmgl_jax.training.losses import (
    batch_hard_triplet_loss,
    cross_entropy,
    total_loss,
    triplet_groups,
)

TINY = ModelConfig(num_classes=5, embed_dim=4)

compiled_triplet = jax.jit(batch_hard_triplet_loss, static_argnames=("margin", "reduction"))


@partial(jax.jit, static_argnames="margin")
def triplet_and_gradient(features, pids, margin):
    return jax.value_and_grad(lambda f: batch_hard_triplet_loss(f, pids, margin)[0])(features)


@partial(jax.jit, static_argnames=("layout", "config"))
def compiled_total(features, logits, pids, layout, config):
    return total_loss(features, logits, pids, layout, config)


def plain_triplet(features, pids, margin):
    """Eq. 3 by loops over anchors, in float64: losses, gradient and anchors left out."""
    features = np.asarray(features, np.float64)
    grad, losses, skipped = np.zeros_like(features), [], 0
    for a in range(len(pids)):
        distance = {c: np.linalg.norm(features[a] - features[c]) for c in range(len(pids))}
        positives = [c for c in distance if pids[c] == pids[a] and c != a]
        negatives = [c for c in distance if pids[c] != pids[a]]
        if not positives or not negatives:
            skipped += 1
            losses.append(0.0)
            continue
        p = max(positives, key=distance.get)
        n = min(negatives, key=distance.get)
        gap = distance[p] - distance[n]
        if margin is None:
            losses.append(np.log1p(np.exp(gap)))
            slope = 1 / (1 + np.exp(-gap))
        else:
            losses.append(max(margin + gap, 0.0))
            slope = float(margin + gap > 0)
        for other, sign in ((p, 1.0), (n, -1.0)):
            if distance[other] > 0:
                direction = sign * slope * (features[a] - features[other]) / distance[other]
                grad[a] += direction
                grad[other] -= direction
    return np.mean(losses), grad / len(pids), skipped


@pytest.mark.parametrize("margin", [0.6, 0.0, 3.0, None])
@pytest.mark.parametrize("seed", range(3))
def test_triplet_equals_plain_loops(margin, seed):
    rng = np.random.default_rng(seed)
    pids = np.repeat(np.arange(4), 3)
    features = rng.normal(size=(12, 7)).astype(np.float32)
    value, grad = triplet_and_gradient(features, pids, margin)
    expected, expected_grad, _ = plain_triplet(features, pids, margin)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-6)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(0, 2**31))
def test_triplet_with_any_identities(pids, seed):
    features = np.random.default_rng(seed).normal(size=(len(pids), 5)).astype(np.float32)
    value, stats = compiled_triplet(features, np.array(pids), 0.6)
    expected, _, skipped = plain_triplet(features, pids, 0.6)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    assert stats.skipped == skipped


def test_triplet_statistics():
    # On a line: persons at 0, 1 and at 5, 9. Hardest positives 1, 1, 4, 4; negatives 5, 4, 4, 8.
    features = jnp.array([[0.0], [1.0], [5.0], [9.0]])
    value, stats = batch_hard_triplet_loss(features, jnp.array([1, 1, 2, 2]), 0.5)
    assert value == pytest.approx((0 + 0 + 0.5 + 0) / 4)
    assert stats.active == 0.25
    assert stats.positive_distance == pytest.approx(2.5)
    assert stats.negative_distance == pytest.approx((5 + 4 + 4 + 8) / 4)
    total, _ = batch_hard_triplet_loss(features, jnp.array([1, 1, 2, 2]), 0.5, reduction="sum")
    assert total == pytest.approx(0.5)


@pytest.mark.parametrize("margin", [0.6, None])
def test_triplet_gradient_is_finite_where_features_coincide(margin):
    features = jnp.zeros((6, 4))
    pids = jnp.array([0, 0, 1, 1, 2, 2])
    value, grad = triplet_and_gradient(features, pids, margin)
    assert value == pytest.approx(0.6 if margin else np.log(2))
    np.testing.assert_array_equal(grad, np.zeros((6, 4)))


def test_triplet_distances_are_exact_for_close_features_far_from_zero():
    # A Gram matrix alone would lose these distances of 0.01 at norm 1000 to rounding.
    features = jnp.array([[1000.0], [1000.0 + 1 / 128], [1000.0 + 3 / 128], [1000.0 + 7 / 128]])
    value, _ = batch_hard_triplet_loss(features, jnp.array([0, 0, 1, 1]), 0.0)
    expected, _, _ = plain_triplet(features, [0, 0, 1, 1], 0.0)
    assert value == pytest.approx(expected, rel=1e-6)


def test_triplet_over_devices_is_the_global_one():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4, 3, 6)).astype(np.float32)
    pids = np.array([0, 0, 1, 1, 2, 2, 3, 3, 0, 1, 2, 3]).reshape(4, 3)

    def loss(f, p):
        return jax.lax.pmean(batch_hard_triplet_loss(f, p, 0.6, axis_name="d")[0], "d")

    per_device = jax.pmap(loss, axis_name="d")(features, pids)
    whole, _ = batch_hard_triplet_loss(features.reshape(12, 6), pids.reshape(12), 0.6)
    np.testing.assert_allclose(per_device, np.full(4, whole), rtol=1e-6)


def test_normalized_triplet_compares_directions_only():
    rng = np.random.default_rng(1)
    layout = feature_layout(ModelConfig(granularities=(1,)))
    features = rng.normal(size=(6, 1, 5)).astype(np.float32)
    pids = jnp.array([0, 0, 1, 1, 2, 2])
    logits = jnp.zeros((6, 1, 3))

    def triplet(features, normalized):
        config = LossConfig(triplet_normalized=normalized)
        return compiled_total(features, logits, pids, layout, config)[1]["triplet"]

    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    np.testing.assert_allclose(triplet(features, True), triplet(unit, False), rtol=1e-5)
    np.testing.assert_allclose(triplet(30 * features, True), triplet(unit, False), rtol=1e-5)
    assert abs(triplet(features, False) - triplet(unit, False)) > 0.1
    slope = jax.grad(lambda f: triplet(f, True))(jnp.zeros_like(features))
    assert np.isfinite(slope).all()


def test_triplet_refuses_wrong_shapes():
    with pytest.raises(ValueError, match=r"got \(4, 2, 3\) and \(4,\)"):
        batch_hard_triplet_loss(jnp.zeros((4, 2, 3)), jnp.zeros(4, int))
    with pytest.raises(ValueError, match=r"\(4, 2\) and \(3,\)"):
        batch_hard_triplet_loss(jnp.zeros((4, 2)), jnp.zeros(3, int))
    with pytest.raises(ValueError, match="'median'"):
        batch_hard_triplet_loss(jnp.zeros((4, 2)), jnp.zeros(4, int), reduction="median")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_plain_loops(smoothing):
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(6, 3, 5)).astype(np.float32), rng.integers(0, 5, 6)
    expected = np.zeros(3)
    for n, b in itertools.product(range(3), range(6)):
        p = np.exp(logits[b, n]) / np.exp(logits[b, n]).sum()
        target = np.full(5, smoothing / 5)
        target[labels[b]] += 1 - smoothing
        expected[n] -= (target * np.log(p)).sum() / 6
    np.testing.assert_allclose(cross_entropy(logits, labels, smoothing), expected, rtol=1e-5)
    # Softmax minus target, over the batch.
    grad = jax.grad(lambda x: cross_entropy(x, labels, smoothing).sum())(logits)
    np.testing.assert_allclose(grad.sum(axis=-1), np.zeros((6, 3)), atol=1e-7)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    target = np.full((6, 3, 5), smoothing / 5)
    target[np.arange(6), :, labels] += 1 - smoothing
    np.testing.assert_allclose(grad, (softmax - target) / 6, atol=1e-6)


def test_cross_entropy_survives_huge_logits():
    logits = jnp.array([[[1e4, 0.0, -1e4]]])
    assert cross_entropy(logits, jnp.array([0]))[0] == 0
    assert cross_entropy(logits, jnp.array([2]))[0] == pytest.approx(2e4)


def test_total_is_the_sum_of_eq_4():
    rng = np.random.default_rng(2)
    layout = feature_layout(TINY)
    features = rng.normal(size=(6, len(layout), 4)).astype(np.float32)
    logits = rng.normal(size=(6, len(layout), 5)).astype(np.float32)
    labels = np.array([0, 0, 1, 1, 2, 2])
    value, metrics = compiled_total(features, logits, labels, layout, LossConfig())
    expected = cross_entropy(logits, labels).sum()
    for branch in (0, 1):
        members = [i for i, spec in enumerate(layout) if spec.branch == branch]
        own = features[:, members].reshape(6, -1)
        expected += batch_hard_triplet_loss(own, labels, 0.6)[0]
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["cross_entropy"] + metrics["triplet"], value, rtol=1e-6)
    assert len([name for name in metrics if name.startswith("cross_entropy/")]) == 14
    assert {name for name in metrics if name.startswith("triplet/")} == {
        "triplet/local2",
        "triplet/local3",
    }


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_total_over_devices_is_that_of_the_batch(reduction):
    """Rows 9 to 11 have no positive, which is counted once."""
    rng = np.random.default_rng(4)
    layout = feature_layout(ModelConfig(num_classes=5, granularities=(2,)))
    features = rng.normal(size=(12, len(layout), 4)).astype(np.float32)
    logits = rng.normal(size=(12, len(layout), 5)).astype(np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1, 0, 2, 3, 4])
    config = LossConfig(triplet_reduction=reduction)

    def loss(*part):
        _, metrics = total_loss(*part, layout, config, "d", parts=4)
        return jax.lax.pmean(metrics, "d")

    arguments = features, logits, labels
    found = jax.pmap(loss, "d")(*(array.reshape(4, 3, *array.shape[1:]) for array in arguments))
    _, expected = compiled_total(*arguments, layout, config)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], np.full(4, value), rtol=1e-5, err_msg=name)
    assert expected["triplet_skipped"] == 3


def test_triplet_weight_and_groups():
    layout = feature_layout(TINY)
    assert triplet_groups(layout, LossConfig(triplet_weight=0)) == {}
    by_global = triplet_groups(layout, LossConfig(triplet_features="global"))
    assert set(by_global) == {f"local{s}/{p}" for s in (2, 3) for p in ("original", "receptive")}
    assert all(layout[i].stripe == 0 for members in by_global.values() for i in members)
    no_global = feature_layout(ModelConfig(original_global=False, receptive_global=False))
    with pytest.raises(ValueError, match="no global feature"):
        triplet_groups(no_global, LossConfig(triplet_features="global"))

    rng = np.random.default_rng(3)
    arguments = (
        rng.normal(size=(4, len(layout), 4)).astype(np.float32),
        rng.normal(size=(4, len(layout), 5)).astype(np.float32),
        np.array([0, 0, 1, 1]),
        layout,
    )
    half, whole = (compiled_total(*arguments, LossConfig(triplet_weight=w))[1] for w in (0.5, 1.0))
    np.testing.assert_allclose(2 * half["triplet"], whole["triplet"], rtol=1e-6)
    np.testing.assert_array_equal(half["cross_entropy"], whole["cross_entropy"])
