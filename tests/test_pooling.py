"""Activation balanced pooling against a plain loop and by its properties; gradients of pooling."""

import itertools
from functools import partial
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmgl_jax.config import Pooling
from rmgl_jax.models.convolution import Conv
from rmgl_jax.models.pooling import (
    POOLINGS,
    activation_balanced_bounds,
    activation_balanced_pool,
    uniform_stripe_pool,
)
from rmgl_jax.models.resnet import Stage
from tests.tiny_model import random_like
from tests.trees import assert_trees_close

bounds_of = jax.jit(activation_balanced_bounds, static_argnums=1)
pool_of = jax.jit(activation_balanced_pool, static_argnums=(1, 2))


def peak_rows(maps: np.ndarray) -> np.ndarray:
    """Row of every channel's first maximum, in row-major order: `[H, W, C] -> [C]`."""
    height, width, channels = maps.shape
    peaks = []
    for channel in range(channels):
        best, row = -np.inf, 0
        for h in range(height):
            for w in range(width):
                if maps[h, w, channel] > best:
                    best, row = maps[h, w, channel], h
        peaks.append(row)
    return np.array(peaks)


def bounds_by_loop(maps: np.ndarray, stripes: int) -> list[int]:
    """Eqs. 8 to 10 for one image, one number after another."""
    height, _, channels = maps.shape
    peaks = peak_rows(maps)
    bounds = [0]
    for k in range(1, stripes):
        h = 0
        while h < height and np.sum(peaks < h + 1) * stripes <= k * channels:
            h += 1
        h = max(h, bounds[-1] + 1)  # the stripe above has a row
        h = min(h, height - (stripes - k))  # those below have one each
        bounds.append(h)
    return [*bounds, height]


@st.composite
def maps_and_stripes(draw):
    """Maps of a few values, so that ties are common, and a number of stripes they can have.

    The shapes are few, because each is compiled separately.
    """
    shape = draw(st.sampled_from([(2, 6, 3, 8), (1, 12, 1, 5), (1, 1, 2, 3)]))
    stripes = draw(st.integers(1, shape[1]))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    maps = rng.integers(0, levels, shape).astype(np.float32)
    if draw(st.booleans()):  # maxima in few rows
        maps[:, rng.integers(shape[1])] += levels
    return maps, stripes


@given(maps_and_stripes())
@settings(max_examples=150)
def test_bounds_are_those_of_a_plain_loop(case):
    maps, stripes = case
    expected = [bounds_by_loop(image, stripes) for image in maps]
    bounds = bounds_of(maps, stripes)
    assert bounds.dtype == jnp.int32
    np.testing.assert_array_equal(bounds, expected)


@given(maps_and_stripes())
@settings(max_examples=100)
def test_every_stripe_has_a_row_and_counts_are_balanced_where_rows_allow_it(case):
    maps, stripes = case
    channels = maps.shape[-1]
    for image, bounds in zip(maps, np.asarray(bounds_of(maps, stripes)), strict=True):
        assert bounds[0] == 0
        assert bounds[-1] == len(image)
        assert (np.diff(bounds) >= 1).all()
        peaks = peak_rows(image)
        for k in range(1, stripes):
            share = k * channels / stripes
            moved_down = bounds[k] == bounds[k - 1] + 1
            moved_up = bounds[k] == len(image) - (stripes - k)
            assert moved_down or np.sum(peaks < bounds[k]) <= share
            assert moved_up or np.sum(peaks < bounds[k] + 1) > share


@given(maps_and_stripes(), st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_bounds_do_not_depend_on_the_order_of_channels(case, random):
    maps, stripes = case
    order = list(range(maps.shape[-1]))
    random.shuffle(order)
    np.testing.assert_array_equal(bounds_of(maps[..., order], stripes), bounds_of(maps, stripes))


@given(maps_and_stripes())
@settings(max_examples=50)
def test_bounds_do_not_depend_on_an_increasing_map_of_the_activations(case):
    maps, stripes = case
    # Both are exact on these small integers, so that no two of them fall together.
    for increasing in (3 * maps - 7, maps**2):
        np.testing.assert_array_equal(bounds_of(increasing, stripes), bounds_of(maps, stripes))


@pytest.mark.parametrize("stripes", [1, 2, 3, 6])
def test_a_uniform_histogram_gives_uniform_stripes(stripes):
    maps = np.random.default_rng(0).random((1, 6, 2, 12), np.float32)
    for channel in range(12):
        maps[0, channel % 6, 1, channel] = 2
    np.testing.assert_array_equal(bounds_of(maps, stripes), [np.arange(stripes + 1) * 6 // stripes])
    for reduce in ("mean", "max"):
        np.testing.assert_allclose(
            pool_of(maps, stripes, reduce), uniform_stripe_pool(maps, stripes, reduce), rtol=1e-6
        )


def test_bounds_of_maps_made_by_hand():
    maps = np.zeros((1, 4, 2, 4), np.float32)
    # Channels peak in rows 1, 1, 1 and 3: H(h) = 0, 3, 3, 4. Of two stripes the first may count
    # 2 channels at most, so it is row 0 alone; of four, rows 0, 1, 2 and 3 by the rows each needs.
    for channel, row in enumerate((1, 1, 1, 3)):
        maps[0, row, 0, channel] = 1
    np.testing.assert_array_equal(bounds_of(maps, 2), [[0, 1, 4]])
    np.testing.assert_array_equal(bounds_of(maps, 4), [[0, 1, 2, 3, 4]])


def test_a_bound_goes_past_rows_without_peaks():
    maps = np.zeros((1, 6, 1, 2), np.float32)
    maps[0, 0, 0, 0] = maps[0, 5, 0, 1] = 1
    # H(h) = 1 for h = 1..5, and 1 <= 2/2: the largest of these h is 5.
    np.testing.assert_array_equal(bounds_of(maps, 2), [[0, 5, 6]])


def test_constant_maps_leave_a_row_for_every_stripe():
    np.testing.assert_array_equal(bounds_of(np.ones((1, 5, 2, 3)), 3), [[0, 1, 2, 5]])


def test_peaks_in_the_last_row_leave_a_row_for_every_stripe():
    maps = np.zeros((1, 5, 2, 3), np.float32)
    maps[0, 4] = 1
    np.testing.assert_array_equal(bounds_of(maps, 3), [[0, 3, 4, 5]])


def test_as_many_stripes_as_rows():
    maps = np.random.default_rng(0).random((2, 5, 2, 7), np.float32)
    np.testing.assert_array_equal(bounds_of(maps, 5), [np.arange(6)] * 2)


def test_the_first_of_equal_maxima_counts_in_row_major_order():
    maps = np.zeros((1, 4, 2, 1), np.float32)
    maps[0, 3, 0] = maps[0, 1, 1] = 1  # row 1 comes first, although column 0 does not
    # Two stripes of one channel: the bound is the last row without a peak above it.
    np.testing.assert_array_equal(bounds_of(maps, 2), [[0, 1, 4]])


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("reduce", ["mean", "max"])
def test_pool_is_over_the_rows_of_each_stripe(dtype, reduce):
    maps = jnp.asarray(np.random.default_rng(1).normal(size=(3, 8, 2, 16)), dtype)
    bounds = np.asarray(bounds_of(maps, 3))
    pooled = pool_of(maps, 3, reduce)
    assert pooled.dtype == dtype
    values = np.asarray(maps, np.float32)
    expected = [
        [getattr(image[a:b], reduce)((0, 1)) for a, b in itertools.pairwise(cut)]
        for image, cut in zip(values, bounds, strict=True)
    ]
    # Summed in float32 and rounded once.
    np.testing.assert_allclose(
        np.asarray(pooled, np.float32), expected, rtol=float(jnp.finfo(dtype).eps), atol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_bounds_are_exact(dtype):
    # 600 channels: counted in half precision, bounds would be off.
    maps = jnp.asarray(np.random.default_rng(2).integers(0, 256, (1, 24, 2, 600)), dtype)
    expected = bounds_by_loop(np.asarray(maps[0], np.float32), 4)
    np.testing.assert_array_equal(bounds_of(maps, 4), [expected])


def test_vmap_is_a_loop_over_images():
    maps = np.random.default_rng(3).random((4, 6, 2, 9), np.float32)

    def one(image):
        bounds, pooled = (f(image[None], 3) for f in (activation_balanced_bounds, pool_of))
        return bounds[0], pooled[0]

    bounds, pooled = jax.jit(jax.vmap(one))(maps)
    np.testing.assert_array_equal(bounds, bounds_of(maps, 3))
    np.testing.assert_allclose(pooled, pool_of(maps, 3), rtol=1e-6)


def test_gradient_is_that_of_stripes_held_fixed():
    maps = np.random.default_rng(4).random((2, 6, 2, 9), np.float32)
    weight = np.random.default_rng(5).normal(size=(2, 3, 9)).astype(np.float32)
    bounds = np.asarray(bounds_of(maps, 3))
    gradient = jax.jit(jax.grad(lambda m: (activation_balanced_pool(m, 3) * weight).sum()))(maps)
    expected = np.zeros_like(maps)
    for image in range(2):
        for k in range(3):
            start, stop = bounds[image, k], bounds[image, k + 1]
            expected[image, start:stop] = weight[image, k] / ((stop - start) * 2)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_no_gradient_goes_through_the_bounds():
    maps = jnp.asarray(np.random.default_rng(4).random((2, 6, 2, 9), np.float32))
    gradient = jax.grad(lambda m: activation_balanced_bounds(m, 3).astype(jnp.float32).sum())(maps)
    np.testing.assert_array_equal(gradient, np.zeros_like(maps))


@pytest.mark.parametrize("pool", [uniform_stripe_pool, activation_balanced_pool])
def test_gradient_of_max_goes_to_the_first_maximum_alone(pool):
    maps = np.zeros((1, 4, 2, 1), np.float32)
    maps[0, 1:3] = 5
    gradient = jax.jit(jax.grad(lambda m: pool(m, 1, "max").sum()))(maps)
    expected = np.zeros_like(maps)
    expected[0, 1, 0] = 1
    np.testing.assert_array_equal(gradient, expected)


def test_gradient_of_max_in_one_program_with_the_layers_before():
    """XLA computes a map again where it is used, and a maximum must not lose its gradient by that.

    With the gradient of `jnp.max` some of it is lost in this program on CPUs.
    """
    rng = np.random.default_rng(0)
    maps, weight = (
        jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 12, 4, 16), (4, 2, 16))
    )
    stage = Stage(1, 4, 1, False, Conv, partial(nn.BatchNorm, momentum=0.9))
    variables = random_like(
        jax.eval_shape(partial(stage.init, train=False), jax.random.key(0), maps)
    )

    def layers(params):
        return stage.apply({**variables, "params": params}, maps, True, mutable="batch_stats")[0]

    def loss(maps):
        return jnp.square(uniform_stripe_pool(maps, 2) * weight).sum()

    params = variables["params"]
    found = jax.jit(jax.grad(lambda params: loss(layers(params))))(params)
    out, backward = jax.vjp(jax.jit(layers), params)
    (expected,) = backward(jax.jit(jax.grad(loss))(out))
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert_trees_close(found, expected, atol=1e-3 * largest)


def test_poolings_are_those_of_the_configuration():
    assert set(POOLINGS) == set(get_args(Pooling))


def test_uniform_stripes():
    maps = np.arange(2 * 6 * 2 * 3, dtype=np.float32).reshape(2, 6, 2, 3)
    np.testing.assert_array_equal(
        uniform_stripe_pool(maps, 3),
        [[image[a : a + 2].max((0, 1)) for a in (0, 2, 4)] for image in maps],
    )
    np.testing.assert_array_equal(
        uniform_stripe_pool(maps, 2, "mean"),
        [[image[a : a + 3].mean((0, 1)) for a in (0, 3)] for image in maps],
    )


@pytest.mark.parametrize("pool", [activation_balanced_pool, uniform_stripe_pool])
def test_bad_input_raises_errors(pool):
    maps = np.ones((1, 6, 2, 3), np.float32)
    with pytest.raises(ValueError, match=r"\[B, H, W, C\], got shape \(6, 2, 3\)"):
        pool(maps[0], 2)
    with pytest.raises(ValueError, match=r"in 1..6, the height, got 7"):
        pool(maps, 7)
    with pytest.raises(ValueError, match=r"in 1..6, the height, got 0"):
        pool(maps, 0)
    with pytest.raises(ValueError, match="max, mean, got 'sum'"):
        pool(maps, 2, "sum")


def test_uniform_stripes_must_divide_the_height():
    with pytest.raises(ValueError, match="4 uniform stripes do not divide maps of height 6"):
        uniform_stripe_pool(np.ones((1, 6, 2, 3), np.float32), 4)
