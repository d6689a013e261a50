"""Stripe pooling in ONNX's operators equals that of the model, also where maxima are equal."""

import jax.numpy as jnp
import numpy as np
import pytest

from rmgl_jax.export import onnx_pooling
from rmgl_jax.export.onnx_graph import GraphWriter
from rmgl_jax.models import pooling
from tests.engines import ENGINES

pytest.importorskip("onnx", reason="the extra `export` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

CHANNELS, HEIGHT, WIDTH = 24, 12, 3
BATCH = 40


def maps_of(kind):
    """Maps `[B, H, W, C]`: noise, equal maxima, mostly zero, and peaks in a single row."""
    rng = np.random.default_rng(0)
    shape = (BATCH, HEIGHT, WIDTH, CHANNELS)
    maps = rng.normal(size=shape)
    if kind == "ties":
        maps = rng.integers(0, 30, shape)
    elif kind == "dead":
        maps = np.maximum(maps, 0) * (rng.random((BATCH, 1, 1, CHANNELS)) < 0.3)
    elif kind == "one row":
        maps = np.abs(maps)
        maps[np.arange(BATCH), rng.integers(0, HEIGHT, BATCH)] += 9
    return maps.astype(np.float32)


KINDS = ("noise", "ties", "dead", "one row")


def run(engine, maps, build):
    """Runs the graph that `build(graph, name)` adds to maps in NCHW."""
    graph = GraphWriter()
    output, dtype, shape = build(graph, "images")
    graph.add("Identity", output, output="output")
    model = graph.model(
        "test",
        {"images": (np.float32, ("batch", CHANNELS, HEIGHT, WIDTH))},
        {"output": (dtype, ("batch", *shape))},
        {},
    )
    return ENGINES[engine](model, np.ascontiguousarray(maps.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stripes", [2, 3, 5, HEIGHT])
def test_balanced_rows_equal_those_of_the_model(stripes, kind, engine):
    maps = maps_of(kind)

    def build(graph, name):
        rows = onnx_pooling.activation_balanced_rows(graph, name, CHANNELS, HEIGHT, stripes)
        return rows, np.float32, (stripes, HEIGHT)

    bounds = np.asarray(pooling.activation_balanced_bounds(jnp.asarray(maps), stripes))
    if kind != "dead" and stripes < HEIGHT:
        assert len(np.unique(bounds, axis=0)) > 1
    row = np.arange(HEIGHT)
    expected = (bounds[:, :-1, None] <= row) & (row < bounds[:, 1:, None])
    np.testing.assert_array_equal(run(engine, maps, build), expected)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("stripes", [1, 3])
def test_pooling_equals_that_of_the_model(stripes, reduce, engine):
    for kind in KINDS:
        maps = maps_of(kind)

        def uniform(graph, name):
            pooled = onnx_pooling.uniform_stripe_pool(graph, name, HEIGHT, WIDTH, stripes, reduce)
            return pooled, np.float32, (stripes, CHANNELS)

        expected = pooling.uniform_stripe_pool(jnp.asarray(maps), stripes, reduce)
        np.testing.assert_allclose(run(engine, maps, uniform), expected, atol=1e-5)
        if stripes == 1:
            continue

        def balanced(graph, name):
            pooled = onnx_pooling.activation_balanced_pool(
                graph, name, CHANNELS, HEIGHT, stripes, reduce
            )
            return pooled, np.float32, (stripes, CHANNELS)

        expected = pooling.activation_balanced_pool(jnp.asarray(maps), stripes, reduce)
        np.testing.assert_allclose(run(engine, maps, balanced), expected, atol=1e-5)
