"""Stripe pooling in ONNX's operators; the functions of `rmgl_jax.models.pooling`, for NCHW maps."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from rmgl_jax.config import Pooling
from rmgl_jax.export.onnx_graph import GraphWriter

# Every stripe has a row, so that this value never remains.
_LOWEST = float(np.finfo(np.float32).min)


def uniform_stripe_pool(
    graph: GraphWriter, maps: str, height: int, width: int, stripes: int, reduce: Pooling
) -> str:
    """Pools each of S stripes of equal height: `[B, C, H, W] -> [B, S, C]`."""
    cut = graph.reshape(maps, [0, 0, stripes, height // stripes * width])
    return graph.transpose(graph.reduce(_KINDS[reduce], cut, axis=3), [0, 2, 1])


def activation_balanced_pool(
    graph: GraphWriter, maps: str, channels: int, height: int, stripes: int, reduce: Pooling
) -> str:
    """Pools each of S stripes of equal significance: `[B, C, H, W] -> [B, S, C]`."""
    inside = activation_balanced_rows(graph, maps, channels, height, stripes)
    return _BALANCED[reduce](graph, maps, inside)


def activation_balanced_rows(
    graph: GraphWriter, maps: str, channels: int, height: int, stripes: int
) -> str:
    """Rows of S >= 2 stripes of equal significance, as zeros and ones.

    The construction is one that OpenVINO 2026.4 computes as it is written. Its ArgMax, which would
    find the row of a channel, may return any of several equal maxima; and it computes a sum or
    product with a constant wrongly if a reduction comes right before. So a channel counts before
    row h if its maximum over the first h rows is that over all rows, and instead of the bounds
    there are the sets of rows above them, which are compared, united and shifted.

    Returns:
        `[B, C, H, W] -> float32 [B, S, H]`.
    """
    rows = graph.reduce("Max", maps, axis=3)  # [B, C, H]
    is_peak = graph.add("Equal", rows, graph.reduce("Max", rows, axis=2, keepdims=True))
    peaks = graph.add("CumSum", graph.cast(is_peak, np.float32), graph.constant(2))
    reached = graph.cast(graph.add("Greater", peaks, _constant(graph, 0)), np.float32)
    count = graph.reduce("Sum", reached, axis=1, keepdims=True)  # [B, 1, H], H(h) for h = 1..H

    row = np.arange(height)[None, None]
    above = _constant(graph, row < 0)
    parts = []
    for k in range(1, stripes):
        # The rows above bound k as Eq. 10 has it, and one more row than above the bound before.
        below = graph.add("LessOrEqual", count, _constant(graph, channels * k // stripes))
        shift = graph.constant([0, 0, 1, 0, 0, -1])
        shifted = graph.add("Pad", above, shift, _constant(graph, 1))
        above = graph.add("Max", graph.cast(below, np.float32), shifted)
        # As many rows as there are stripes below remain for them.
        parts.append(graph.add("Mul", above, _constant(graph, row < height - stripes + k)))
    middle = [graph.add("Sub", lower, upper) for upper, lower in pairwise(parts)]
    last = graph.add("Sub", _constant(graph, 1), parts[-1])
    return graph.add("Concat", parts[0], *middle, last, axis=1)


def _constant(graph: GraphWriter, values: Any) -> str:
    return graph.constant(values, np.float32)


def _balanced_max(graph: GraphWriter, maps: str, inside: str) -> str:
    rows = graph.add("Unsqueeze", graph.reduce("Max", maps, axis=3), graph.constant([1]))
    is_inside = graph.add("Greater", inside, _constant(graph, 0))
    is_inside = graph.add("Unsqueeze", is_inside, graph.constant([2]))
    return graph.reduce(
        "Max", graph.add("Where", is_inside, rows, _constant(graph, _LOWEST)), axis=3
    )


def _balanced_mean(graph: GraphWriter, maps: str, inside: str) -> str:
    rows = graph.transpose(graph.reduce("Mean", maps, axis=3), [0, 2, 1])  # [B, H, C]
    count = graph.reduce("Sum", inside, axis=2, keepdims=True)
    return graph.add("MatMul", graph.add("Div", inside, count), rows)


_KINDS: dict[Pooling, str] = {"max": "Max", "mean": "Mean"}
_BALANCED: dict[Pooling, Callable[[GraphWriter, str, str], str]] = {
    "max": _balanced_max,
    "mean": _balanced_mean,
}
