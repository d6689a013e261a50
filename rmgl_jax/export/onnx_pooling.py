"""Stripe pooling in ONNX's operators; the functions of `rmgl_jax.models.pooling`, for NCHW maps."""

from collections.abc import Callable

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
    bounds = activation_balanced_bounds(graph, maps, channels, height, stripes)  # [B, S-1]
    lower, upper = (
        graph.add("Pad", bounds, graph.constant(pads), graph.constant(value, np.int32))
        for pads, value in (([0, 1, 0, 0], 0), ([0, 0, 0, 1], height))
    )
    lower, upper = (graph.add("Unsqueeze", x, graph.constant([2])) for x in (lower, upper))
    row = graph.constant([[range(height)]], np.int32)
    inside = graph.add(
        "And", graph.add("LessOrEqual", lower, row), graph.add("Less", row, upper)
    )  # [B, S, H]
    return _BALANCED[reduce](graph, maps, inside)


def activation_balanced_bounds(
    graph: GraphWriter, maps: str, channels: int, height: int, stripes: int
) -> str:
    """Inner bounds of S stripes of equal significance: `[B, C, H, W] -> int32 [B, S-1]`.

    ONNX's ArgMax would find the row of a channel's maximum, but OpenVINO computes it by a partial
    sort that may return any of several equal maxima. A channel counts before row h if its maximum
    over the first h rows is that over all rows: comparisons and integer sums, which an engine
    cannot round.
    """
    rows = graph.reduce("Max", maps, axis=3)  # [B, C, H]
    is_peak = graph.add("Equal", rows, graph.reduce("Max", rows, axis=2, keepdims=True))
    peaks = graph.add("CumSum", graph.cast(is_peak, np.int32), graph.constant(2))
    reached = graph.add("Greater", peaks, graph.constant(0, np.int32))
    count = graph.reduce("Sum", graph.cast(reached, np.int32), axis=1, keepdims=True)  # [B, 1, H]

    inner = np.arange(1, stripes)
    scaled = graph.add("Mul", count, graph.constant(stripes, np.int32))
    limits = graph.constant(channels * inner[None, :, None], np.int32)
    below = graph.cast(graph.add("LessOrEqual", scaled, limits), np.int32)  # [B, S-1, H]
    bounds = graph.reduce("Sum", below, axis=2)

    # The running maximum of bounds - k that leaves a row to every stripe. It is at least 0, so that
    # the zeros of the triangle do not count.
    slack = graph.add("Sub", bounds, graph.constant(inner, np.int32))
    slack = graph.add("Max", slack, graph.constant(0, np.int32))
    triangle = graph.constant(np.tri(stripes - 1)[None], np.int32)
    earlier = graph.add("Mul", graph.add("Unsqueeze", slack, graph.constant([1])), triangle)
    slack = graph.reduce("Max", earlier, axis=2)
    slack = graph.add("Min", slack, graph.constant(height - stripes, np.int32))
    return graph.add("Add", slack, graph.constant(inner, np.int32))


def _balanced_max(graph: GraphWriter, maps: str, inside: str) -> str:
    rows = graph.add("Unsqueeze", graph.reduce("Max", maps, axis=3), graph.constant([1]))
    inside = graph.add("Unsqueeze", inside, graph.constant([2]))
    lowest = graph.constant(_LOWEST, np.float32)
    return graph.reduce("Max", graph.add("Where", inside, rows, lowest), axis=3)


def _balanced_mean(graph: GraphWriter, maps: str, inside: str) -> str:
    rows = graph.transpose(graph.reduce("Mean", maps, axis=3), [0, 2, 1])  # [B, H, C]
    inside = graph.cast(inside, np.float32)
    count = graph.reduce("Sum", inside, axis=2, keepdims=True)
    return graph.add("MatMul", graph.add("Div", inside, count), rows)


_KINDS: dict[Pooling, str] = {"max": "Max", "mean": "Mean"}
_BALANCED: dict[Pooling, Callable[[GraphWriter, str, str], str]] = {
    "max": _balanced_max,
    "mean": _balanced_mean,
}
