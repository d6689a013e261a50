"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), exact, without an N x N matrix.

The N = Q + G images are numbered with the queries first; d is the squared Euclidean distance of
their L2-normalized features. N(i, k) is image i and its k nearest others by (distance, index).

- R(i, k): those j of N(i, k) that have i in N(j, k).
- R*(i): R(i, k1), joined by R(j, k1/2) for each j in it of which more than 2/3 lies in R(i, k1).
- V(i): exp(-d(i, j) / max d(i, .)) for j in R*(i), divided by their sum. Then the mean of V over
  the k2 nearest of i, itself included.
- Jaccard distance: 1 - sum_j min(V(q), V(g)) / sum_j max(V(q), V(g)).
- Result: (1 - lambda) * Jaccard + lambda * d(q, g) / max d(q, .).

All these sets have some dozens of members. As rows of sparse matrices, the set operations of all
images are a few products, and V takes some hundred bytes an image.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from rmgl_jax.evaluation.distances import (
    check_pair,
    check_zeros,
    distance_blocks,
    row_blocks,
    unit_distances,
)
from rmgl_jax.evaluation.neighbors import Neighbors, nearest_neighbors

# Queries whose Jaccard distances are computed at once.
_JACCARD_ROWS = 32


def rerank(
    query_features: ArrayLike,
    gallery_features: ArrayLike,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> np.ndarray:
    """Re-ranked distances of all queries and gallery images.

    Args:
        query_features: embeddings [Q, E], of any length but 0: they are L2-normalized here.
        gallery_features: embeddings [G, E].
        k1: neighbors of an image.
        k2: neighbors over which the encoding is averaged; 1 leaves that out.
        lambda_value: weight of the original distance, from 0 to 1.

    Returns:
        Distances [Q, G], float32, in [0, 1].

    Raises:
        TypeError: features are not floating-point numbers.
        ValueError: shapes do not agree, a feature is zero or not finite, or a parameter is out of
            range.
    """
    query, gallery = _check(query_features, gallery_features, k1, k2, lambda_value)
    result = np.empty((len(query), len(gallery)), np.float32)
    encoding, farthest = _encode(query, gallery, k1, k2, between=result)
    inverted = encoding[len(query) :].T.tocsr()
    return _blend(result, encoding[: len(query)], inverted, farthest[: len(query)], lambda_value)


def rerank_blocks(
    query_features: ArrayLike,
    gallery_features: ArrayLike,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    block: int | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """`rerank` in blocks of queries, for galleries at whose size [Q, G] would not fit.

    Args:
        query_features: see `rerank`, as are the other arguments.
        gallery_features: embeddings [G, E].
        k1: neighbors of an image.
        k2: neighbors over which the encoding is averaged; 1 leaves that out.
        lambda_value: weight of the original distance, from 0 to 1.
        block: queries of a block; None chooses blocks of about 128 MiB.

    Returns:
        An iterator over the slice of a block of queries and its distances [block, G].

    Raises:
        TypeError: features are not floating-point numbers.
        ValueError: shapes do not agree, a feature is zero or not finite, or a parameter is out of
            range.
    """
    query, gallery = _check(query_features, gallery_features, k1, k2, lambda_value)
    row_blocks(len(query), len(gallery), block)  # refuses a bad block here and not later

    def generate() -> Iterator[tuple[slice, np.ndarray]]:
        encoding, farthest = _encode(query, gallery, k1, k2)
        inverted = encoding[len(query) :].T.tocsr()
        for rows, distances in distance_blocks(query, gallery, block, unit_distances):
            yield rows, _blend(distances, encoding[rows], inverted, farthest[rows], lambda_value)

    return generate()


def _encode(
    query: np.ndarray,
    gallery: np.ndarray,
    k1: int,
    k2: int,
    between: np.ndarray | None = None,
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """V after its averaging [N, N], and the farthest distance of every image [N]."""
    neighbors = nearest_neighbors((query, gallery), max(k1, k2 - 1), between)
    indices = neighbors.indices
    # Where all images are the same there is nothing to divide by.
    farthest = np.where(neighbors.farthest > 0, neighbors.farthest, np.float32(1))
    near = _reciprocal(indices, k1)
    # The definition rounds half to even, as Python does.
    nearer = _reciprocal(indices, round(k1 / 2))
    # Of each j in R(i): how many of R(j, k1/2) are in R(i)? That relation is symmetric, so a
    # product counts them.
    joined = near.multiply(near @ nearer).tocsr()
    joined.data = (3 * joined.data > 2 * np.diff(nearer.indptr)[joined.indices]).astype(np.int32)
    joined.eliminate_zeros()
    expanded = near + joined @ nearer
    encoding = _weights(query, gallery, expanded, neighbors, farthest)
    if k2 > 1:
        total = _membership(indices[:, :k2]).astype(np.float32)
        encoding = (total @ encoding) / np.float32(min(k2, indices.shape[1]))
    return encoding.tocsr(), farthest


def _membership(neighbors: np.ndarray) -> sparse.csr_matrix:
    """Rows of indices [N, k] as a 0-1 matrix [N, N]."""
    n, k = neighbors.shape
    starts = np.arange(0, n * k + 1, k)
    return sparse.csr_matrix((np.ones(n * k, np.int32), neighbors.ravel(), starts), shape=(n, n))


def _reciprocal(neighbors: np.ndarray, k: int) -> sparse.csr_matrix:
    """R(i, k) of every image, as a 0-1 matrix [N, N]; it is symmetric and has a full diagonal."""
    forward = _membership(neighbors[:, : k + 1])
    return forward.multiply(forward.T).tocsr()


def _weights(
    query: np.ndarray,
    gallery: np.ndarray,
    sets: sparse.csr_matrix,
    neighbors: Neighbors,
    farthest: np.ndarray,
) -> sparse.csr_matrix:
    """exp(-d(i, j) / max d(i, .)) for the members j of every set, divided by their sum."""
    n, k = neighbors.indices.shape
    i, j = np.repeat(np.arange(n), np.diff(sets.indptr)), sets.indices
    # Most distances were found in the search. A pair is one number, to look them up by.
    found = np.arange(n)[:, None] * n + neighbors.indices
    by_pair = np.argsort(found, axis=None)
    pairs = i * n + j
    place = by_pair[np.minimum(np.searchsorted(found.ravel(), pairs, sorter=by_pair), n * k - 1)]
    distances = neighbors.distances.ravel()[place]
    missing = found.ravel()[place] != pairs
    distances[missing] = _pair_distances(query, gallery, i[missing], j[missing])
    weights = np.exp(-distances / farthest[i])
    weights /= np.add.reduceat(weights, sets.indptr[:-1])[i]  # no set is empty
    return sparse.csr_matrix((weights, j, sets.indptr), shape=sets.shape)


def _pair_distances(
    query: np.ndarray, gallery: np.ndarray, i: np.ndarray, j: np.ndarray
) -> np.ndarray:
    """`unit_distances` of the images i with the images j [pairs], both numbered through."""

    def take(images: np.ndarray) -> np.ndarray:
        features = np.empty((len(images), query.shape[1]), np.float32)
        of_query = images < len(query)
        features[of_query] = query[images[of_query]]
        features[~of_query] = gallery[images[~of_query] - len(query)]
        return features

    distances = np.empty(len(i), np.float32)
    for pairs in row_blocks(len(i), 1, 64):  # few enough for the cache
        a, b = take(i[pairs]), take(j[pairs])
        ab, aa, bb = (np.einsum("pe,pe->p", x, y) for x, y in ((a, b), (a, a), (b, b)))
        distances[pairs] = np.maximum(2 - 2 * ab / np.sqrt(aa * bb), 0)
    return distances


def _blend(
    distances: np.ndarray,
    encoding: sparse.csr_matrix,
    inverted: sparse.csr_matrix,
    farthest: np.ndarray,
    lambda_value: float,
) -> np.ndarray:
    """(1 - lambda) * Jaccard + lambda * d / max d, for queries' d and V, written over their d."""
    for rows in row_blocks(*distances.shape, _JACCARD_ROWS):
        distances[rows] *= lambda_value / farthest[rows, None]
        distances[rows] += (1 - lambda_value) * _jaccard(encoding[rows], inverted)
    return distances


def _jaccard(queries: sparse.csr_matrix, inverted: sparse.csr_matrix) -> np.ndarray:
    """Jaccard distances [b, G] of encodings [b, N] and the transpose [N, G] of the gallery's."""
    # A row for each member of each query: the gallery images that share it, and how much of it.
    shared = inverted[queries.indices]
    shared.data = np.minimum(shared.data, np.repeat(queries.data, np.diff(shared.indptr)))
    sum_members = sparse.csr_matrix(
        (np.ones(queries.nnz, np.float32), np.arange(queries.nnz), queries.indptr),
        shape=(queries.shape[0], queries.nnz),
    )
    smaller = (sum_members @ shared).toarray()
    # Encodings sum to 1, so that the sum of the larger is 2 minus the sum of the smaller.
    return 1 - smaller / (2 - smaller)


def _check(
    query: ArrayLike, gallery: ArrayLike, k1: int, k2: int, lambda_value: float
) -> tuple[np.ndarray, np.ndarray]:
    if k1 < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1, got {k1} and {k2}.")
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value must be between 0 and 1, got {lambda_value}.")
    query, gallery = check_pair(query, gallery)
    check_zeros(query, gallery)
    return query, gallery
