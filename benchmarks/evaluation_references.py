"""Plain NumPy evaluators, as references for benchmarks and tests."""

import numpy as np


def rank_by_argsort(distances, query_pids, query_camids, gallery_pids, gallery_camids):
    """Computes (rank-1, step mAP) as most evaluators do: sorts the matrix, then loops over rows."""
    order = np.argsort(distances, axis=1, kind="stable")
    first, precisions = [], []
    for row, pid, camid in zip(order, query_pids, query_camids, strict=True):
        pids, camids = gallery_pids[row], gallery_camids[row]
        kept = (pids != -1) & ~((pids == pid) & (camids == camid))
        matches = pids[kept] == pid
        if not matches.any():
            continue
        precision = np.cumsum(matches) / np.arange(1, len(matches) + 1)
        first.append(matches[0])
        precisions.append(precision[matches].mean())
    return np.mean(first), np.mean(precisions)


def rerank_dense(query, gallery, k1=20, k2=6, lambda_value=0.3, dtype=np.float32):
    """Computes k-reciprocal re-ranking by its definition, with N x N matrices; returns [Q, G]."""
    n_query = len(query)
    features = np.concatenate([query, gallery]).astype(dtype)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    n = len(features)
    distances = np.maximum(2 - 2 * features @ features.T, 0)
    np.fill_diagonal(distances, 0)
    largest = distances.max(axis=0)
    # If all images are equal, all distances are 0.
    distances = (distances / np.where(largest > 0, largest, 1)).T
    np.fill_diagonal(distances, -1)  # An image is its own first neighbor, even among duplicates.
    order = np.argsort(distances, axis=1, kind="stable")
    np.fill_diagonal(distances, 0)

    half = int(np.around(k1 / 2))
    weights = np.zeros((n, n), dtype)
    for i in range(n):
        near = _reciprocal(order, i, k1)
        expanded = near
        for candidate in near:
            theirs = _reciprocal(order, candidate, half)
            if len(np.intersect1d(theirs, near)) > 2 / 3 * len(theirs):
                expanded = np.append(expanded, theirs)
        expanded = np.unique(expanded)
        weight = np.exp(-distances[i, expanded])
        weights[i, expanded] = weight / weight.sum()

    if k2 > 1:
        weights = np.stack([weights[order[i, :k2]].mean(axis=0) for i in range(n)])
    distances = distances[:n_query, n_query:].copy()
    del order

    having = [np.flatnonzero(weights[:, j]) for j in range(n)]
    jaccard = np.zeros((n_query, n), dtype)
    for i in range(n_query):
        smaller = np.zeros(n, dtype)
        for j in np.flatnonzero(weights[i]):
            smaller[having[j]] += np.minimum(weights[i, j], weights[having[j], j])
        # Both rows sum to 1, so the sum of maxima is 2 minus the sum of minima.
        jaccard[i] = 1 - smaller / (2 - smaller)
    return (1 - lambda_value) * jaccard[:, n_query:] + lambda_value * distances


def _reciprocal(order, i, k):
    forward = order[i, : k + 1]
    return forward[(order[forward, : k + 1] == i).any(axis=1)]
