"""Stripe pooling: uniform stripes, and activation balanced pooling (ABP, III-C)."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rmgl_jax.config import Pooling


def uniform_stripe_pool(maps: jax.Array, stripes: int, reduce: Pooling = "max") -> jax.Array:
    """Pools each of S stripes of equal height: `[B, H, W, C] -> [B, S, C]`.

    Args:
        maps: `[B, H, W, C]`.
        stripes: S.
        reduce: name in `POOLINGS`.

    Raises:
        ValueError: The maps do not have four axes, `stripes` does not divide H, or `reduce` is
            unknown.
    """
    _check(maps, stripes, reduce)
    batch, height, width, channels = maps.shape
    if height % stripes:
        raise ValueError(f"{stripes} uniform stripes do not divide maps of height {height}.")
    cut = maps.reshape(batch, stripes, height // stripes * width, channels)
    return POOLINGS[reduce].uniform(cut)


def activation_balanced_bounds(maps: jax.Array, stripes: int) -> jax.Array:
    """Bounds of S stripes of equal significance: `[B, H, W, C] -> int32 [B, S+1]`.

    A channel counts in the row of its maximum, the first in row-major order (Eq. 8). With the
    cumulative count `H(h)` of the first h rows (Eq. 9), bound k is the largest h with
    `H(h) <= k C / S` (Eq. 10), moved as little as needed so that every stripe has a row. Stripe k
    consists of the rows `bounds[k] : bounds[k+1]`; the first bound is 0, the last is H. The bounds
    have no gradient.

    Raises:
        ValueError: The maps do not have four axes, or `stripes` is not in 1..H.
    """
    _check(maps, stripes)
    batch, height, _, channels = maps.shape
    # The first maximum of the row maxima is in the row of the map's first maximum.
    peak = _position(maps.max(axis=2), axis=1)  # [B, C]
    rows = jnp.arange(1, height + 1)
    count = jnp.sum(peak[:, None, :] < rows[None, :, None], axis=2)  # [B, H], H(h) for h = 1..H

    inner = jnp.arange(1, stripes)
    # In integers: S H(h) <= k C. H(h) never decreases, so the number of such h is the largest h.
    below = stripes * count[:, :, None] <= channels * inner[None, None, :]
    bounds = jnp.sum(below, axis=1)  # [B, S-1]

    # Bounds increase if bounds - k never decreases. Between 0 and H - S it leaves a row to every
    # stripe, including the first and the last.
    slack = lax.cummax(jnp.maximum(bounds - inner[None, :], 0), axis=1)
    bounds = jnp.minimum(slack, height - stripes) + inner[None, :]
    first, last = jnp.zeros((batch, 1)), jnp.full((batch, 1), height)
    return jnp.concatenate([first, bounds, last], axis=1).astype(jnp.int32)


def activation_balanced_pool(maps: jax.Array, stripes: int, reduce: Pooling = "mean") -> jax.Array:
    """Pools each of S stripes of equal significance: `[B, H, W, C] -> [B, S, C]`.

    The stripes are those of `activation_balanced_bounds`. Each is reduced over its own rows and all
    columns (Eq. 11 is the mean; its sum over all rows is read as over the rows of the stripe).

    Args:
        maps: `[B, H, W, C]`.
        stripes: S.
        reduce: name in `POOLINGS`.

    Raises:
        ValueError: The maps do not have four axes, `stripes` is not in 1..H, or `reduce` is
            unknown.
    """
    _check(maps, stripes, reduce)
    bounds = activation_balanced_bounds(maps, stripes)
    row = jnp.arange(maps.shape[1])[None, None, :]
    inside = (bounds[:, :-1, None] <= row) & (row < bounds[:, 1:, None])  # [B, S, H]
    return POOLINGS[reduce].balanced(maps, inside)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def first_max(x: jax.Array, axis: int) -> jax.Array:
    """Maximum along an axis whose gradient goes to the first maximum only.

    The gradient of `jnp.max` goes to the entries that equal the maximum. If the compiler computes
    an entry again for this comparison, in another order of operations, the entry may differ from
    the maximum by rounding and its gradient is lost (observed with XLA on CPUs). Comparing
    positions has no such rounding.
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
    """Position of the first maximum.

    XLA's reduction to a position is slow on CPUs, and three times slower with the computation of
    `x` fused into it, which a barrier prevents there.
    """
    x = lax.stop_gradient(x)
    x = lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda x: x)
    return jnp.argmax(x, axis=axis)


def _uniform_max(cut: jax.Array) -> jax.Array:
    return first_max(cut, axis=2)


def _balanced_max(maps: jax.Array, inside: jax.Array) -> jax.Array:
    # Over W first, so that the mask acts on H rows only.
    rows = first_max(maps, axis=2)[:, None]  # [B, 1, H, C]
    return first_max(jnp.where(inside[..., None], rows, -jnp.inf), axis=2)


def _uniform_mean(cut: jax.Array) -> jax.Array:
    return cut.mean(2)


def _balanced_mean(maps: jax.Array, inside: jax.Array) -> jax.Array:
    rows = maps.mean(axis=2, dtype=jnp.promote_types(maps.dtype, jnp.float32))
    weight = inside / inside.sum(axis=2, keepdims=True)
    return jnp.einsum("bsh,bhc->bsc", weight.astype(rows.dtype), rows).astype(maps.dtype)


class StripePooling(NamedTuple):
    """A reduction of stripes to vectors, for both kinds of stripes."""

    uniform: Callable[[jax.Array], jax.Array]
    """Reduces the n positions of each stripe: `[B, S, n, C] -> [B, S, C]`."""
    balanced: Callable[[jax.Array, jax.Array], jax.Array]
    """Reduces the rows in each stripe, from maps `[B, H, W, C]` and a mask `[B, S, H]`."""


POOLINGS: dict[Pooling, StripePooling] = {
    "max": StripePooling(_uniform_max, _balanced_max),
    "mean": StripePooling(_uniform_mean, _balanced_mean),
}
"""All poolings by name. A new one also needs its name in `config.Pooling`."""


def _check(maps: jax.Array, stripes: int, reduce: Pooling = "max") -> None:
    if maps.ndim != 4:
        raise ValueError(f"Pooling takes maps [B, H, W, C], got shape {maps.shape}.")
    if not 1 <= stripes <= maps.shape[1]:
        raise ValueError(f"stripes must be in 1..{maps.shape[1]}, the height, got {stripes}.")
    if reduce not in POOLINGS:
        raise ValueError(f"reduce must be one of {', '.join(POOLINGS)}, got {reduce!r}.")
