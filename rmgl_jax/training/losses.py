"""The losses of RMGL: batch-hard triplet (Eq. 3), cross-entropy (Eq. 2) and their total (Eq. 4)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from data_prep.errors import InputError
from rmgl_jax.config import LossConfig
from rmgl_jax.models.rmgl import FeatureSpec

_PRECISE = lax.Precision.HIGHEST


class TripletStats(NamedTuple):
    """Statistics of a triplet loss; every field is a scalar."""

    skipped: jax.Array
    """Anchors without a positive or without a negative among the candidates."""
    active: jax.Array
    """Share of the anchors whose triplet has a positive loss."""
    positive_distance: jax.Array
    """Mean distance to the hardest positive, over the anchors that have both."""
    negative_distance: jax.Array
    """Mean distance to the hardest negative, over the anchors that have both."""


def euclidean_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Distance between rows, `[B, F] x [B, F] -> [B]`, with gradient zero where they coincide."""
    squared = jnp.sum(jnp.square(a - b), axis=-1)
    # sqrt has an infinite slope at 0, and 0 * inf is NaN in the backward pass: the inner `where`
    # keeps sqrt away from 0, the outer one restores the value.
    apart = squared > 0
    return jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0)


def normalize_rows(features: jax.Array) -> jax.Array:
    """Scales rows `[B, F]` to length 1; rows shorter than 1e-6 stay short."""
    squared = jnp.sum(jnp.square(features), axis=-1, keepdims=True)
    return features * lax.rsqrt(jnp.maximum(squared, 1e-12))


def batch_hard_triplet_loss(
    features: jax.Array,
    pids: jax.Array,
    margin: float | None = 0.6,
    *,
    reduction: str = "mean",
    axis_name: str | None = None,
) -> tuple[jax.Array, TripletStats]:
    """Batch-hard triplet loss, Eq. 3 with a positive sign (Hermans et al., 2017).

    For every anchor, `[margin + farthest positive - nearest negative]_+` in Euclidean distance.
    The hardest examples are found from the Gram matrix; their distances, and with them the
    gradient, are then computed from the differences, which are exact also for close pairs.

    Args:
        features: `[B, F]`, float.
        pids: identity of each row, integer `[B]`.
        margin: alpha of Eq. 3; None is the soft margin `log(1 + exp(positive - negative))`.
        reduction: "mean" or "sum" over the B anchors. An anchor without a positive or without a
            negative contributes zero to either.
        axis_name: mapped axis; if given, positives and negatives are searched among the rows of
            all its devices, for the anchors of this device.

    Returns:
        The loss (scalar) and what was seen.

    Raises:
        ValueError: if the shapes do not agree or `reduction` is unknown.
    """
    if features.ndim != 2 or pids.shape != features.shape[:1]:
        raise ValueError(
            "batch_hard_triplet_loss requires features [B, F] and pids [B], "
            f"got {features.shape} and {pids.shape}."
        )
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}.")
    features = features.astype(jnp.float32)
    anchors = jnp.arange(features.shape[0])
    candidates, candidate_pids = features, pids
    if axis_name is not None:
        candidates = lax.all_gather(features, axis_name, tiled=True)
        candidate_pids = lax.all_gather(pids, axis_name, tiled=True)
        anchors = anchors + lax.axis_index(axis_name) * features.shape[0]

    same = pids[:, None] == candidate_pids[None, :]
    itself = anchors[:, None] == jnp.arange(candidates.shape[0])[None, :]
    positives, negatives = same & ~itself, ~same

    # |a - c|^2 up to |a|^2, which is the same for all candidates of an anchor. Around the mean,
    # since distances do not change with the origin but rounding grows with the distance to it.
    center = candidates.mean(axis=0, keepdims=True)
    fixed, others = lax.stop_gradient((features - center, candidates - center))
    gram = jnp.matmul(fixed, others.T, precision=_PRECISE)
    closeness = jnp.sum(jnp.square(others), axis=-1)[None, :] - 2.0 * gram
    farthest_positive = jnp.argmax(jnp.where(positives, closeness, -jnp.inf), axis=1)
    nearest_negative = jnp.argmin(jnp.where(negatives, closeness, jnp.inf), axis=1)

    positive = euclidean_distance(features, candidates[farthest_positive])
    negative = euclidean_distance(features, candidates[nearest_negative])
    gap = positive - negative
    valid = positives.any(axis=1) & negatives.any(axis=1)
    hinge = jax.nn.softplus(gap) if margin is None else jax.nn.relu(margin + gap)
    losses = jnp.where(valid, hinge, 0.0)

    count = jnp.maximum(valid.sum(), 1)
    stats = TripletStats(
        skipped=(~valid).sum(),
        active=(losses > 0).mean(),
        positive_distance=jnp.where(valid, positive, 0.0).sum() / count,
        negative_distance=jnp.where(valid, negative, 0.0).sum() / count,
    )
    return (losses.mean() if reduction == "mean" else losses.sum()), lax.stop_gradient(stats)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy of each classifier, Eq. 2, averaged over the batch.

    Args:
        logits: `[B, N, classes]`.
        labels: `[B]`, integers in `0..classes-1`; not checked here. The training loop checks the
            number of identities.
        smoothing: share of the target spread evenly over all classes.

    Returns:
        `[N]`, one value a classifier.
    """
    log_probability = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    index = jnp.broadcast_to(labels[:, None, None], (*logits.shape[:2], 1))
    target = jnp.take_along_axis(log_probability, index, axis=-1)[..., 0]
    if smoothing:
        target = (1.0 - smoothing) * target + smoothing * log_probability.mean(axis=-1)
    return -target.mean(axis=0)


def triplet_groups(
    layout: tuple[FeatureSpec, ...], config: LossConfig
) -> dict[str, tuple[int, ...]]:
    """Returns the indices of the features that each triplet loss concatenates, by its name.

    One loss for each branch (f^(b) of Eq. 3); with `triplet_features="global"` one for each global
    feature.

    Raises:
        InputError: global features are asked for, and the model has none.
    """
    groups: dict[str, tuple[int, ...]] = {}
    if config.triplet_weight == 0:
        return groups
    for index, spec in enumerate(layout):
        if config.triplet_features == "branch":
            name = spec.branch_name
        elif spec.stripe == 0:
            name = spec.map_name
        else:
            continue
        groups[name] = (*groups.get(name, ()), index)
    if not groups:
        raise InputError(
            "triplet_features is 'global', but the model has no global feature: set "
            "triplet_weight to 0 or give a path its global feature."
        )
    return groups


def total_loss(
    features: jax.Array,
    logits: jax.Array,
    labels: jax.Array,
    layout: tuple[FeatureSpec, ...],
    config: LossConfig,
    axis_name: str | None = None,
    parts: int = 1,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the objective of Eq. 4: all cross-entropies, and a triplet loss for each branch.

    Args:
        features: `[B, N, D]`.
        logits: `[B, N, classes]`.
        labels: `[B]`.
        layout: branch, path and stripe of each feature (`models.rmgl.feature_layout`).
        config: weights and margins.
        axis_name: mapped axis over which triplets are mined; None mines in this batch alone.
        parts: number of equal parts of the batch, of which this is one, and whose losses and
            metrics will be averaged. What is summed over anchors is multiplied by it.

    Returns:
        The loss (scalar) and its terms as metrics: `loss`, `cross_entropy` (sum over the N
        classifiers), `triplet` (sum over the branches, weighted), each term on its own,
        `accuracy` (mean over classifiers) and `triplet_skipped` (anchors without a
        positive or a negative, mean over branches).
    """
    entropies = cross_entropy(logits, labels, config.label_smoothing)
    metrics = {f"cross_entropy/{spec.name}": entropies[i] for i, spec in enumerate(layout)}
    triplet, skipped = jnp.float32(0), jnp.float32(0)
    groups = triplet_groups(layout, config)
    for name, members in groups.items():
        embedding = features[:, jnp.array(members), :].reshape(features.shape[0], -1)
        if config.triplet_normalized:
            embedding = normalize_rows(embedding)
        value, stats = batch_hard_triplet_loss(
            embedding,
            labels,
            config.margin,
            reduction=config.triplet_reduction,
            axis_name=axis_name,
        )
        if config.triplet_reduction == "sum":
            value *= parts
        metrics[f"triplet/{name}"] = value
        metrics[f"triplet_active/{name}"] = stats.active
        triplet += config.triplet_weight * value
        skipped += parts * stats.skipped / len(groups)
    classification = entropies.sum()
    loss = classification + triplet
    hits = (jnp.argmax(logits, axis=-1) == labels[:, None]).mean()
    metrics |= {
        "loss": loss,
        "cross_entropy": classification,
        "triplet": triplet,
        "accuracy": hits,
        "triplet_skipped": skipped,
    }
    return loss, metrics
