"""k-reciprocal re-ranking (Zhong et al., CVPR 2017), exact, without an N x N matrix.

Images are numbered with the queries first. The sets R and R* of `rerank` have some dozens of
members each. As rows of sparse matrices, the set operations of all images are a few matrix
products, and the encoding V takes some hundred bytes per image.
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
    """Computes distances by k-reciprocal re-ranking (Zhong et al., CVPR 2017).

    Over all N = Q + G images, let d be the squared Euclidean distance of the L2-normalized
    features, and N(i, k) image i with its k nearest other images by (distance, index)::

        R(i, k)  = {j in N(i, k) : i in N(j, k)}
        R*(i)    = R(i, k1), and R(j, k1/2) of every j in R(i, k1)
                   with |R(j, k1/2) & R(i, k1)| > 2/3 |R(j, k1/2)|
        V(i)_j   = exp(-d(i, j) / max d(i, .)) for j in R*(i), else 0; divided by its sum
        V'(i)    = mean of V over the k2 nearest images of i, including i
        J(q, g)  = 1 - sum_j min(V'(q)_j, V'(g)_j) / sum_j max(V'(q)_j, V'(g)_j)
        result   = (1 - lambda) J(q, g) + lambda d(q, g) / max d(q, .)

    k1/2 is rounded half to even. Labels are not used: junk images and images of the query's own
    camera take part.

    Args:
        query_features: embeddings [Q, E], not zero; they are L2-normalized here.
        gallery_features: embeddings [G, E], likewise.
        k1: neighbors of an image that may be reciprocal.
        k2: images over which the encoding is averaged (local query expansion); 1 disables it.
        lambda_value: weight of the original distance, from 0 to 1.

    Returns:
        Distances [Q, G], float32, in [0, 1].

    Raises:
        TypeError: features are not floating-point numbers.
        ValueError: shapes do not agree, or a parameter is out of range.
        InputError: a feature is zero or not finite.
    """
    query, gallery = _check_arguments(query_features, gallery_features, k1, k2, lambda_value)
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
    """Computes `rerank` in blocks of queries, for sizes at which [Q, G] does not fit in memory.

    Args:
        query_features: see `rerank`, as are the other arguments.
        gallery_features: embeddings [G, E].
        k1: neighbors of an image that may be reciprocal.
        k2: images over which the encoding is averaged; 1 disables it.
        lambda_value: weight of the original distance, from 0 to 1.
        block: queries in a block; by default as many as fit 128 MiB of distances.

    Returns:
        An iterator over slices of queries and their distances [block, G].

    Raises:
        TypeError: features are not floating-point numbers.
        ValueError: shapes do not agree, or a parameter is out of range.
        InputError: a feature is zero or not finite.
    """
    query, gallery = _check_arguments(query_features, gallery_features, k1, k2, lambda_value)
    row_blocks(len(query), len(gallery), block)  # an invalid block raises here, not in the iterator

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
    """Computes V' [N, N], and the largest distance of every image [N]."""
    neighbors = nearest_neighbors((query, gallery), max(k1, k2 - 1), between)
    indices = neighbors.indices
    # If all images are equal, all distances are 0.
    farthest = np.where(neighbors.farthest > 0, neighbors.farthest, np.float32(1))
    near = _reciprocal(indices, k1)
    # The reference implementation rounds half to even, as Python does.
    nearer = _reciprocal(indices, round(k1 / 2))
    # |R(j, k1/2) & R(i, k1)| for every j in R(i, k1): R is symmetric, so that a product counts it.
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
    """Converts rows of indices [N, k] to a 0-1 matrix [N, N]."""
    n, k = neighbors.shape
    starts = np.arange(0, n * k + 1, k)
    return sparse.csr_matrix((np.ones(n * k, np.int32), neighbors.ravel(), starts), shape=(n, n))


def _reciprocal(neighbors: np.ndarray, k: int) -> sparse.csr_matrix:
    """Computes R(i, k) of every image as a symmetric 0-1 matrix [N, N] with a diagonal of ones."""
    forward = _membership(neighbors[:, : k + 1])
    return forward.multiply(forward.T).tocsr()


def _weights(
    query: np.ndarray,
    gallery: np.ndarray,
    sets: sparse.csr_matrix,
    neighbors: Neighbors,
    farthest: np.ndarray,
) -> sparse.csr_matrix:
    """Computes V: exp(-d(i, j) / max d(i, .)) for the members j of set i, divided by its sum."""
    n, k = neighbors.indices.shape
    i, j = np.repeat(np.arange(n), np.diff(sets.indptr)), sets.indices
    # Most distances are known from the search; a pair (i, j) is looked up as the number i N + j.
    found = np.arange(n)[:, None] * n + neighbors.indices
    by_pair = np.argsort(found, axis=None)
    pairs = i * n + j
    place = by_pair[np.minimum(np.searchsorted(found.ravel(), pairs, sorter=by_pair), n * k - 1)]
    distances = neighbors.distances.ravel()[place]
    missing = found.ravel()[place] != pairs
    distances[missing] = _pair_distances(query, gallery, i[missing], j[missing])
    weights = np.exp(-distances / farthest[i])
    weights /= np.add.reduceat(weights, sets.indptr[:-1])[i]  # every set contains i
    return sparse.csr_matrix((weights, j, sets.indptr), shape=sets.shape)


def _pair_distances(
    query: np.ndarray, gallery: np.ndarray, i: np.ndarray, j: np.ndarray
) -> np.ndarray:
    """Computes `unit_distances` of pairs of images, given by their indices i and j."""

    def take(images: np.ndarray) -> np.ndarray:
        features = np.empty((len(images), query.shape[1]), np.float32)
        of_query = images < len(query)
        features[of_query] = query[images[of_query]]
        features[~of_query] = gallery[images[~of_query] - len(query)]
        return features

    distances = np.empty(len(i), np.float32)
    for pairs in row_blocks(len(i), 1, 64):  # so that both operands stay in the cache
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
    """Overwrites distances of queries with (1 - lambda) J + lambda d / max d, and returns them."""
    for rows in row_blocks(len(distances), distances.shape[1], _JACCARD_ROWS):
        distances[rows] *= lambda_value / farthest[rows, None]
        distances[rows] += (1 - lambda_value) * _jaccard(encoding[rows], inverted)
    return distances


def _jaccard(queries: sparse.csr_matrix, inverted: sparse.csr_matrix) -> np.ndarray:
    """Computes J [b, G] from encodings of queries [b, N] and the gallery's transposed [N, G]."""
    # One row for each member of each query: min(V'(q)_j, V'(g)_j) of all gallery images.
    shared = inverted[queries.indices]
    shared.data = np.minimum(shared.data, np.repeat(queries.data, np.diff(shared.indptr)))
    sum_members = sparse.csr_matrix(
        (np.ones(queries.nnz, np.float32), np.arange(queries.nnz), queries.indptr),
        shape=(queries.shape[0], queries.nnz),
    )
    smaller = (sum_members @ shared).toarray()
    # Encodings sum to 1: the sum of the maxima is 2 minus the sum of the minima.
    return 1 - smaller / (2 - smaller)


def _check_arguments(
    query: ArrayLike, gallery: ArrayLike, k1: int, k2: int, lambda_value: float
) -> tuple[np.ndarray, np.ndarray]:
    if k1 < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1, got {k1} and {k2}.")
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value must be between 0 and 1, got {lambda_value}.")
    features = check_pair(query, gallery)
    check_zeros(*features)
    return features
