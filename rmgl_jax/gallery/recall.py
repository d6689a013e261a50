"""Recall of an approximate index against exact search."""

from itertools import islice

import numpy as np

from rmgl_jax.gallery.collection import Collection
from rmgl_jax.gallery.entries import Filters


def measure_recall(collection: Collection, top: int, queries: int) -> float:
    """Measures which share of the exact `top` results of a search the index finds.

    Args:
        collection: the rows, of which all embeddings are read once.
        top: results of a search.
        queries: rows to search for, taken at random.

    Returns:
        Recall from 0 to 1, averaged over the queries; 1 in an empty collection.
    """
    collection.flush()
    # Ids are digests, so that the first are a random sample.
    sample = [entry.id for entry in collection.page(Filters(), 0, queries)]
    if not sample:
        return 1.0
    embeddings = collection.embeddings(sample)
    vectors = np.stack([embeddings[id] for id in sample])
    best = np.full((len(sample), top), -np.inf, np.float32)
    scan = collection.scan_embeddings()
    while part := [embedding for _, embedding in islice(scan, 1000)]:
        both = np.concatenate([best, vectors @ np.stack(part).T], axis=1)
        best = -np.partition(-both, top - 1, axis=1)[:, :top]
    found = collection.search(vectors, top, Filters(), fields=("id",))
    # Results that are as near as the exact ones count, also if they are others.
    least = best.min(axis=1, where=np.isfinite(best), initial=np.inf) - 1e-5
    hits = [
        sum(score >= limit for _, score in row) / np.isfinite(exact).sum()
        for row, limit, exact in zip(found, least, best, strict=True)
    ]
    return min(float(np.mean(hits)), 1.0)
