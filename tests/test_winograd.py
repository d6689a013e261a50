"""Winograd's convolution equals the plain one, with its gradients, wherever it is used."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rmgl_jax.cpu import plain, winograd
from rmgl_jax.devices import AXIS, data_mesh
from rmgl_jax.models.convolution import Conv

pytestmark = pytest.mark.network

NARROW, WIDE = 64, 128  # below and at the width whose gradient by the kernel is Winograd's too


def operands(batch=4, height=5, width=3, channels=WIDE, features=WIDE):
    """Map, kernel and cotangent. A trained map is far from zero, as here."""
    rng = np.random.default_rng(0)
    shapes = [(batch, height, width, channels), (3, 3, channels, features)]
    shapes.append((batch, height, width, features))
    x, kernel, cotangent = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return x + 10, kernel, cotangent


def output_and_gradients(convolution, x, kernel, cotangent):
    out, pull = jax.vjp(convolution, x, kernel)
    return out, *pull(cotangent)


def exact(x, kernel, cotangent):
    """Sums in float64."""
    with jax.enable_x64(True):
        wide = (np.float64(a) for a in (x, kernel, cotangent))
        return jax.device_get(jax.jit(partial(output_and_gradients, plain.convolution))(*wide))


def assert_same(found, expected, tolerance=3e-6):
    """Differences relative to the largest value, as rounding is."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize(("size", "width"), [((6, 4), (WIDE, WIDE + 2)), ((1, 2), (NARROW, WIDE))])
def test_winograd_is_as_exact_as_sums(size, width):
    given = operands(2, *size, *width)
    found = jax.jit(partial(output_and_gradients, winograd.convolve))(*given)
    assert_same(found, exact(*given))


def test_winograd_rematerialized_mapped_and_sharded_is_the_same():
    x, kernel, cotangent = operands()
    expected = exact(x, kernel, cotangent)

    def loss(x, kernel, cotangent):
        return (jax.checkpoint(winograd.convolve)(x, kernel) * cotangent).sum()

    gradient = jax.grad(loss, argnums=(0, 1))

    def per_device(x, kernel, cotangent):
        """By vmap over the images of a device, on maps of odd sizes."""
        images = x[:, None], cotangent[:, None]
        by_input, by_kernel = jax.vmap(gradient, (0, None, 0))(images[0], kernel, images[1])
        return by_input[:, 0], jax.lax.psum(by_kernel.sum(0), AXIS)

    rows = P(AXIS)
    sharded = jax.shard_map(
        per_device,
        mesh=data_mesh(),
        in_specs=(rows, P(), rows),
        out_specs=(rows, P()),
        check_vma=False,
    )
    assert_same(jax.jit(sharded)(x, kernel, cotangent), expected[1:])

    pmapped = jax.pmap(gradient, in_axes=(0, None, 0))
    by_input, by_kernel = pmapped(x[:, None], kernel, cotangent[:, None])
    assert_same((by_input[:, 0], by_kernel.sum(0)), expected[1:])


def test_winograd_is_lowered_for_cpus_only():
    def operations(platform):
        traced = jax.jit(partial(output_and_gradients, winograd.convolve)).trace(*operands())
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")

    assert operations("cpu") == (0, 3 * 16)
    for platform in ("cuda", "tpu"):
        assert operations(platform) == (3, 0)


def test_suits_takes_wide_3x3_convolutions_in_float32():
    def suits(channels=NARROW, dtype=jnp.float32, stride=1, size=3, features=NARROW):
        x = jnp.ones((1, 4, 4, channels), dtype)
        return winograd.suits(x, jnp.ones((size, size, channels, features)), stride)

    assert suits()
    assert not suits(channels=NARROW - 1)
    assert not suits(features=NARROW - 1)
    assert not suits(dtype=jnp.bfloat16)
    assert not suits(stride=2)
    assert not suits(size=7)


@pytest.mark.parametrize(("dtype", "convolutions"), [(jnp.float32, 0), (jnp.bfloat16, 1)])
def test_conv_uses_winograd_where_it_suits(dtype, convolutions):
    conv = Conv(NARROW, 3, dtype=dtype)
    x = jnp.ones((1, 4, 4, NARROW))
    program = jax.jit(conv.init_with_output).lower(jax.random.key(0), x)
    assert program.as_text().count("stablehlo.convolution") == convolutions
    assert program.out_info[0].dtype == dtype
