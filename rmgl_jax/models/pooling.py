"""Stripe pooling: uniform stripes, and activation balanced pooling (ABP, III-C)."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

Reduce = Literal["max", "mean"]


def uniform_stripe_pool(maps: jax.Array, stripes: int, reduce: Reduce = "max") -> jax.Array:
    """Pools each of S equally high stripes: `[B, H, W, C] -> [B, S, C]`.

    Raises:
        ValueError: The maps have not four axes, `stripes` does not divide H, or `reduce` is not one
            of the two.
    """
    _check(maps, stripes, reduce)
    batch, height, width, channels = maps.shape
    if height % stripes:
        raise ValueError(f"{stripes} uniform stripes do not divide maps of height {height}.")
    cut = maps.reshape(batch, stripes, height // stripes * width, channels)
    return first_max(cut, axis=2) if reduce == "max" else cut.mean(2)


def activation_balanced_bounds(maps: jax.Array, stripes: int) -> jax.Array:
    """Rows where S stripes of equal significance start and end: `[B, H, W, C] -> int32 [B, S+1]`.

    A channel counts for the row of its maximum, the first in row-major order (Eq. 8). With the
    cumulative count `H(h)` of the first h rows (Eq. 9), bound k is the largest h for which
    `H(h) <= k C / S` (Eq. 10), moved as little as needed for every stripe to have a row. Stripe k
    is the rows `bounds[k] : bounds[k+1]`; the first bound is 0, the last is H. No gradient goes
    through the bounds.

    Raises:
        ValueError: The maps have not four axes, or `stripes` is not in 1..H.
    """
    _check(maps, stripes)
    batch, height, _, channels = maps.shape
    # The first maximum of the row maxima is in the row of the map's first maximum.
    peak = _position(maps.max(axis=2), axis=1)  # [B, C]
    rows = jnp.arange(1, height + 1)
    count = jnp.sum(peak[:, None, :] < rows[None, :, None], axis=2)  # [B, H], H(h) for h = 1..H

    inner = jnp.arange(1, stripes)
    # In integers: S H(h) <= k C. H(h) never falls, so the number of such h is the largest one.
    below = stripes * count[:, :, None] <= channels * inner[None, None, :]
    bounds = jnp.sum(below, axis=1)  # [B, S-1]

    # bounds - k must not fall for bounds to increase, and stay in 0..H-S to leave every stripe,
    # the first and the last too, a row.
    slack = lax.cummax(jnp.maximum(bounds - inner[None, :], 0), axis=1)
    bounds = jnp.minimum(slack, height - stripes) + inner[None, :]
    first, last = jnp.zeros((batch, 1)), jnp.full((batch, 1), height)
    return jnp.concatenate([first, bounds, last], axis=1).astype(jnp.int32)


def activation_balanced_pool(maps: jax.Array, stripes: int, reduce: Reduce = "mean") -> jax.Array:
    """Pools each of S stripes of equal significance: `[B, H, W, C] -> [B, S, C]`.

    The stripes are those of `activation_balanced_bounds`; each is averaged over its own rows and
    all columns (Eq. 11, whose sum over all rows is read as over the stripe's), or its maximum is
    taken.

    Raises:
        ValueError: The maps have not four axes, `stripes` is not in 1..H, or `reduce` is unknown.
    """
    _check(maps, stripes, reduce)
    bounds = activation_balanced_bounds(maps, stripes)
    row = jnp.arange(maps.shape[1])[None, None, :]
    inside = (bounds[:, :-1, None] <= row) & (row < bounds[:, 1:, None])  # [B, S, H]
    if reduce == "max":
        # Over W first, so that the mask acts on H rows only.
        rows = first_max(maps, axis=2)[:, None]  # [B, 1, H, C]
        return first_max(jnp.where(inside[..., None], rows, -jnp.inf), axis=2)
    rows = maps.mean(axis=2, dtype=jnp.promote_types(maps.dtype, jnp.float32))
    weight = inside / inside.sum(axis=2, keepdims=True)
    return jnp.einsum("bsh,bhc->bsc", weight.astype(rows.dtype), rows).astype(maps.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def first_max(x: jax.Array, axis: int) -> jax.Array:
    """Maximum along an axis, whose gradient goes to the first maximum alone.

    The gradient of `jnp.max` goes to the entries that equal the maximum. A compiler that computes
    an entry a second time for that comparison, in another order of operations, may find it to equal
    no longer, and the gradient is lost (seen with XLA on CPUs). A position is not lost.
    """
    return x.max(axis)


def _first_max_forward(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    return x.max(axis), x


def _first_max_backward(axis: int, x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    top = jnp.expand_dims(_position(x, axis), axis)
    here = lax.broadcasted_iota(top.dtype, x.shape, axis % x.ndim) == top
    return (jnp.where(here, jnp.expand_dims(cotangent, axis), 0),)


first_max.defvjp(_first_max_forward, _first_max_backward)


def _position(x: jax.Array, axis: int) -> jax.Array:
    """Where the first maximum is.

    XLA's reduction to a position is slow on CPUs; with the computation of `x` fused into it, as it
    would be, three times slower.
    """
    return jnp.argmax(lax.optimization_barrier(lax.stop_gradient(x)), axis=axis)


def _check(maps: jax.Array, stripes: int, reduce: str = "max") -> None:
    if maps.ndim != 4:
        raise ValueError(f"Pooling takes maps [B, H, W, C], got shape {maps.shape}.")
    if not 1 <= stripes <= maps.shape[1]:
        raise ValueError(f"stripes must be in 1..{maps.shape[1]}, the height, got {stripes}.")
    if reduce not in ("max", "mean"):
        raise ValueError(f"reduce must be 'max' or 'mean', got {reduce!r}.")
