"""Alpha query expansion (Radenović et al., TPAMI 2019)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rmgl_jax.evaluation.distances import check_pair, check_zeros, row_blocks, unit_distances


def expand_queries(
    query_features: ArrayLike,
    gallery_features: ArrayLike,
    k: int = 5,
    alpha: float = 3.0,
    block: int | None = None,
) -> np.ndarray:
    """Replaces every query q by a weighted sum of itself and its k nearest gallery images g.

    q' = q + sum over the k nearest g of max(cos(q, g), 0)^alpha g, with all features L2-normalized
    before, and q' after. Labels are not used, so that junk and images of the query's own camera
    contribute. Pass the result to `rank_features` or `rerank` in place of the queries.

    Args:
        query_features: embeddings [Q, E], none of them zero.
        gallery_features: embeddings [G, E], none of them zero.
        k: number of neighbors; the whole gallery if it is smaller.
        alpha: exponent of the weights; 0 weighs all neighbors equally.
        block: queries expanded at once; by default as many as fit `TILE_BYTES`.

    Returns:
        Unit embeddings [Q, E], float32.

    Raises:
        TypeError: features are not floating-point numbers.
        ValueError: shapes do not agree, or `k` or `alpha` is out of range.
        InputError: a feature is zero or not finite.
    """
    if k < 1 or not alpha >= 0:
        raise ValueError(f"k must be at least 1 and alpha at least 0, got {k} and {alpha}.")
    query, gallery = check_pair(query_features, gallery_features)
    check_zeros(query, gallery)
    expanded = np.empty(query.shape, np.float32)
    resident = jnp.asarray(gallery)
    for rows in row_blocks(len(query), max(len(gallery), k * gallery.shape[1]), block):
        expanded[rows] = _expand(query[rows], resident, min(k, len(gallery)), alpha)
    return expanded


@functools.partial(jax.jit, static_argnames="k")
def _expand(query: jax.Array, gallery: jax.Array, k: int, alpha: float) -> jax.Array:
    # `top_k` prefers the lower index among equal values.
    distances, nearest = jax.lax.top_k(-unit_distances(query, gallery), k)
    cosines = jnp.maximum(1.0 + distances / 2.0, 0.0)
    weighted = (cosines**alpha)[:, :, None] * _unit(gallery[nearest])
    return _unit(_unit(query) + weighted.sum(axis=1))


def _unit(features: jax.Array) -> jax.Array:
    features = features.astype(jnp.float32)
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)
