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
    """Finds the rows of each of S stripes of equal significance, for S >= 2.

    OpenVINO 2026.4 computes this graph as it is written, but not the more direct ones: it computes
    a sum or a product wrongly if one side is a constant and the other comes right from a reduction,
    such as a count. ArgMax is avoided, as an engine might return any of several equal maxima.
    Therefore a channel counts before row h if its maximum over the first h rows equals that over
    all rows, and bounds are not numbers but the sets of rows above them.

    Returns:
        Zeros and ones: `[B, C, H, W] -> float32 [B, S, H]`.
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
        # Above bound k are the rows that Eq. 10 says, and at least one more than above bound k - 1.
        below = graph.add("LessOrEqual", count, _constant(graph, channels * k // stripes))
        # Not with a negative pad, which ONNX's own evaluator lacks.
        padded = graph.add("Pad", above, graph.constant([0, 0, 1, 0, 0, 0]), _constant(graph, 1))
        ends = (graph.constant(values) for values in ([0], [height], [2]))
        shifted = graph.add("Slice", padded, *ends)
        above = graph.add("Max", graph.cast(below, np.float32), shifted)
        # A row remains for each of the stripes below.
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
