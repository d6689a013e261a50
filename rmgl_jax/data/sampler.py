"""P x K sampling: batches of P identities with K images each.

Batches are a pure function of (labels, P, K, seed, epoch), and every epoch has `steps_per_epoch`
of them. A training loop computes the batch of any step with
`epoch, row = divmod(step, steps_per_epoch(...))` and needs no sampler state to resume.

An epoch uses every image. The images of each identity are shuffled and split into *chunks* of K; an
incomplete last chunk is filled with images of the same identity. An identity with n images has
ceil(n / K) chunks. Each chunk takes one of the P *slots* of a batch. A batch holds each identity at
most once, so the number of batches is

    steps = max(ceil(all chunks / P), chunks of the most frequent identity)

Slots that remain are filled with additional chunks, distributed over the identities as evenly as
possible.
"""

import numpy as np

from data_prep.errors import InputError


def steps_per_epoch(labels: np.ndarray, num_ids: int, num_instances: int) -> int:
    """Number of batches in an epoch; it is the same for all epochs.

    Args:
        labels: Identities of all images, integers [M].
        num_ids: P, the number of identities in a batch.
        num_instances: K, the number of images of each identity.

    Raises:
        InputError: If there are fewer than P identities, or P or K is not positive.
        ValueError: If the labels are not a one-dimensional integer array.
    """
    return _steps(_count_chunks(_group(labels, num_ids, num_instances), num_instances), num_ids)


def identity_batches(
    labels: np.ndarray,
    num_ids: int,
    num_instances: int,
    seed: int,
    epoch: int,
    process_index: int = 0,
    process_count: int = 1,
) -> np.ndarray:
    """Image indices of all batches of an epoch, int64 [steps, P * K], each row grouped by identity.

    Every image appears at least once, a batch holds each identity at most once, and the K images of
    an identity are different if it has at least K. With several processes, each gets the columns of
    P / process_count identities; their concatenation in process order is the global batch.

    Args:
        labels: Identities of all images, integers [M].
        num_ids: P, the number of identities in a global batch.
        num_instances: K, the number of images of each identity.
        seed: Seed of the random order; each pair of seed and epoch gives a different order.
        epoch: Number of the epoch, from 0.
        process_index: Index of this process, from 0.
        process_count: Number of processes.

    Raises:
        InputError: If there are fewer than P identities, P or K is not positive, or
            `process_count` does not divide P.
        ValueError: If the labels are not a one-dimensional integer array, or `process_index` is not
            in 0..process_count - 1.
    """
    if process_count < 1 or num_ids % process_count:
        raise InputError(
            f"process_count must divide the {num_ids} identities of a batch, got {process_count}."
        )
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must be between 0 and {process_count - 1}, got {process_index}."
        )
    members = _group(labels, num_ids, num_instances)
    chunks = _count_chunks(members, num_instances)
    steps = _steps(chunks, num_ids)
    rng = np.random.default_rng((seed, epoch))

    slots = _fill_slots(rng, chunks, steps * num_ids, steps)
    # Any K consecutive images of a repeated permutation of n >= K images are different.
    images = [
        np.resize(rng.permutation(own), (count, num_instances))
        for own, count in zip(members, slots, strict=True)
    ]
    chosen = _draw_identities(rng, slots, steps, num_ids)
    batches = np.empty((steps, num_ids, num_instances), np.int64)
    used = np.zeros(len(members), np.int64)
    for batch, row in zip(batches, chosen, strict=True):
        for slot, identity in enumerate(row):
            batch[slot] = images[identity][used[identity]]
        used[row] += 1
    local_ids = num_ids // process_count
    local = batches[:, process_index * local_ids : (process_index + 1) * local_ids]
    return local.reshape(steps, local_ids * num_instances)


def _group(labels: np.ndarray, num_ids: int, num_instances: int) -> list[np.ndarray]:
    """Image indices of each identity; checks that they suffice for a batch."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "labels must be a one-dimensional integer array, got shape "
            f"{labels.shape} and dtype {labels.dtype}."
        )
    if num_ids < 1 or num_instances < 1:
        raise InputError(
            "A batch needs at least one identity and one image of each, got "
            f"num_ids={num_ids} and num_instances={num_instances}."
        )
    order = np.argsort(labels, kind="stable")
    _, first = np.unique(labels[order], return_index=True)
    if len(first) < num_ids:
        raise InputError(
            f"A batch of {num_ids} identities needs at least {num_ids} of them, but the "
            f"{len(labels)} labels have only {len(first)}."
        )
    return np.split(order, first[1:])


def _count_chunks(members: list[np.ndarray], num_instances: int) -> np.ndarray:
    sizes = np.array([len(own) for own in members])
    return -(-sizes // num_instances)


def _steps(chunks: np.ndarray, num_ids: int) -> int:
    return int(max(-(-chunks.sum() // num_ids), chunks.max()))


def _fill_slots(rng: np.random.Generator, chunks: np.ndarray, total: int, steps: int) -> np.ndarray:
    """Slots of each identity: at least its chunks, at most `steps`, and `total` in sum."""
    slots = chunks.copy()
    while missing := total - slots.sum():
        free = np.flatnonzero(slots < steps)
        slots[rng.permutation(free)[:missing]] += 1
    return slots


def _draw_identities(
    rng: np.random.Generator, slots: np.ndarray, steps: int, num_ids: int
) -> np.ndarray:
    """Draws P different identities for every step, [steps, P], each as often as it has slots.

    This is systematic sampling. With t steps left, an identity with r slots left is drawn with
    probability r / t, which spreads each identity evenly over the epoch. The identities form, in
    random order, intervals of length r on a line of length t * P, and P points at distance t select
    the intervals that contain them. No interval is longer than t, so none contains two points, and
    an interval of length t always contains one. Hence after the draw no interval is longer than
    t - 1, on a line of length (t - 1) * P.
    """
    remaining = slots.copy()
    chosen = np.empty((steps, num_ids), np.int64)
    for step in range(steps):
        left = steps - step
        order = rng.permutation(len(slots))
        points = rng.integers(left) + left * np.arange(num_ids)
        ends = np.cumsum(remaining[order])
        chosen[step] = order[np.searchsorted(ends, points, side="right")]
        remaining[chosen[step]] -= 1
    return chosen
