"""P x K batches: which images a training step sees.

A batch holds P persons with K images each. Batches are a pure function of (labels, P, K, seed,
epoch), and an epoch always has `steps_per_epoch` of them, so a training loop finds the batch of any
step with `epoch, row = divmod(step, steps_per_epoch(...))` and has nothing to save for a resume.

An epoch passes over all images. Each person's images are shuffled and dealt out in *hands* of K; a
last hand that is not full takes images of the same person again. A person with n images thus
takes a place in ceil(n / K) batches, and as a batch holds nobody twice, the epoch has

    steps = max(ceil(all hands / P), hands of the most frequent person)

batches. Places left over are given to persons once more, as evenly as possible.
"""

import numpy as np


def steps_per_epoch(labels: np.ndarray, num_ids: int, num_instances: int) -> int:
    """Number of batches of one epoch, the same for every epoch.

    Args:
        labels: Integer identity of every image, [M].
        num_ids: P, identities in a batch.
        num_instances: K, images of each.

    Raises:
        ValueError: If there are fewer than P identities, or P or K is not positive.
    """
    return _steps(_hands(_group(labels, num_ids, num_instances), num_instances), num_ids)


def identity_batches(
    labels: np.ndarray,
    num_ids: int,
    num_instances: int,
    seed: int,
    epoch: int,
    process_index: int = 0,
    process_count: int = 1,
) -> np.ndarray:
    """Image indices of every batch of an epoch, [steps, P*K] int64, rows grouped by person.

    Every image appears at least once, no batch holds a person twice, and a person's K images differ
    whenever that person has K. With several processes each gets its own columns, P /
    process_count whole persons of every batch; side by side they are the batches of one process.

    Args:
        labels: Integer identity of every image, [M].
        num_ids: P, identities in a (global) batch.
        num_instances: K, images of each.
        seed: With `epoch`, all that the result depends on beside the labels.
        epoch: Number of the epoch, from 0.
        process_index: Which slice to return.
        process_count: How many slices there are.

    Raises:
        ValueError: If there are fewer than P identities, P or K is not positive, `process_count`
            does not divide P, or `process_index` is not below `process_count`.
    """
    if process_count < 1 or num_ids % process_count:
        raise ValueError(
            f"A batch of {num_ids} persons cannot be shared by {process_count} processes: each "
            "must get the same number of whole persons."
        )
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must be between 0 and {process_count - 1}, got {process_index}."
        )
    members = _group(labels, num_ids, num_instances)
    hands = _hands(members, num_instances)
    steps = _steps(hands, num_ids)
    rng = np.random.default_rng((seed, epoch))

    places = _fill_places(rng, hands, steps * num_ids, steps)
    # K neighbors of a cycle of n >= K images differ, also where the cycle starts again.
    dealt = [
        np.resize(rng.permutation(own), (count, num_instances))
        for own, count in zip(members, places, strict=True)
    ]
    chosen = _draw_persons(rng, places, steps, num_ids)
    batches = np.empty((steps, num_ids, num_instances), np.int64)
    seen = np.zeros(len(members), np.int64)
    for batch, row in zip(batches, chosen, strict=True):
        for column, person in enumerate(row):
            batch[column] = dealt[person][seen[person]]
        seen[row] += 1
    share = num_ids // process_count
    mine = batches[:, process_index * share : (process_index + 1) * share]
    return mine.reshape(steps, share * num_instances)


def _group(labels: np.ndarray, num_ids: int, num_instances: int) -> list[np.ndarray]:
    """Image indices of each identity, after checking that batches can be made of them."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "labels must be a one-dimensional integer array, got shape "
            f"{labels.shape} and dtype {labels.dtype}."
        )
    if num_ids < 1 or num_instances < 1:
        raise ValueError(
            "A batch needs at least one identity and one image of each, got "
            f"num_ids={num_ids} and num_instances={num_instances}."
        )
    order = np.argsort(labels, kind="stable")
    _, first = np.unique(labels[order], return_index=True)
    if len(first) < num_ids:
        raise ValueError(
            f"A batch of {num_ids} persons needs at least as many identities, but the "
            f"{len(labels)} labels hold {len(first)}."
        )
    return np.split(order, first[1:])


def _hands(members: list[np.ndarray], num_instances: int) -> np.ndarray:
    sizes = np.array([len(own) for own in members])
    return -(-sizes // num_instances)


def _steps(hands: np.ndarray, num_ids: int) -> int:
    return int(max(-(-hands.sum() // num_ids), hands.max()))


def _fill_places(rng: np.random.Generator, hands: np.ndarray, total: int, steps: int) -> np.ndarray:
    """Raises `hands` to sum to `total`, none above `steps`, each round giving one per person."""
    places = hands.copy()
    while missing := total - places.sum():
        free = np.flatnonzero(places < steps)
        places[rng.permutation(free)[:missing]] += 1
    return places


def _draw_persons(
    rng: np.random.Generator, places: np.ndarray, steps: int, num_ids: int
) -> np.ndarray:
    """Draws P different persons for every step, [steps, P], each as often as `places` says.

    With t steps left, a person with r places left is drawn with probability r / t, so that everyone
    is spread evenly over the epoch. The persons are lined up in random order, as intervals of
    length r on a line of length t * P, and those that hold every t-th point are taken. No interval
    is longer than t, so none holds two points, and one of length t holds one for certain: after the
    draw none is longer than t - 1, on a line of length (t - 1) * P.
    """
    remaining = places.copy()
    chosen = np.empty((steps, num_ids), np.int64)
    for step in range(steps):
        left = steps - step
        order = rng.permutation(len(places))
        points = rng.integers(left) + left * np.arange(num_ids)
        ends = np.cumsum(remaining[order])
        chosen[step] = order[np.searchsorted(ends, points, side="right")]
        remaining[chosen[step]] -= 1
    return chosen
