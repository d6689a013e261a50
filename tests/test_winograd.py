"""Winograd's convolution is the plain one, with its gradients, wherever it stands in a program."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from rmgl_jax.cpu import winograd
from rmgl_jax.devices import AXIS, data_mesh
from rmgl_jax.models.convolution import Conv

NARROW, WIDE = 64, 128  # with and without the plain gradient by the kernel


def operands(batch=2, height=6, width=4, channels=WIDE, features=WIDE):
    """Map, kernel and cotangent."""
    rng = np.random.default_rng(0)
    shapes = [(batch, height, width, channels), (3, 3, channels, features)]
    shapes.append((batch, height, width, features))
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def output_and_gradients(convolution, x, kernel, cotangent):
    out, pull = jax.vjp(convolution, x, kernel)
    return out, *pull(cotangent)


def assert_same(one, other, tolerance=3e-6):
    """Differences relative to the largest value, as rounding is."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize(
    ("size", "width"),
    [((6, 4), (WIDE, WIDE + 2)), ((5, 3), (WIDE, WIDE)), ((1, 2), (NARROW, WIDE))],
)
def test_output_and_gradients_are_those_of_the_plain_convolution(size, width):
    given = operands(2, *size, *width)
    assert_same(
        jax.jit(partial(output_and_gradients, winograd.convolve))(*given),
        jax.jit(partial(output_and_gradients, winograd.plain))(*given),
    )


def test_values_of_a_trained_scale_stay_as_exact_as_plain_ones():
    """Against sums in float64: no digits are lost to the transforms."""
    x, kernel, cotangent = operands()
    x += 10  # far from zero, as after a ReLU
    with jax.enable_x64(True):
        given = (np.float64(a) for a in (x, kernel, cotangent))
        exact = jax.device_get(output_and_gradients(winograd.plain, *given))
    assert_same(output_and_gradients(winograd.convolve, x, kernel, cotangent), exact)


def test_rematerialized_mapped_and_sharded_it_is_the_same():
    x, kernel, cotangent = operands(batch=4)
    one = output_and_gradients(winograd.convolve, x, kernel, cotangent)

    assert_same(output_and_gradients(jax.checkpoint(winograd.convolve), x, kernel, cotangent), one)

    def loss(x, kernel, cotangent):
        return (winograd.convolve(x, kernel) * cotangent).sum()

    gradient = jax.grad(loss, argnums=(0, 1))
    parts = [a.reshape(4, 1, *a.shape[1:]) for a in (x, cotangent)]
    by_vmap = jax.vmap(gradient, in_axes=(0, None, 0))(parts[0], kernel, parts[1])
    by_pmap = jax.pmap(gradient, in_axes=(0, None, 0))(parts[0], kernel, parts[1])
    for by_input, by_kernel in (by_vmap, by_pmap):
        assert_same((by_input.reshape(x.shape), by_kernel.sum(0)), one[1:])

    def per_device(x, kernel, cotangent):
        by_input, by_kernel = gradient(x, kernel, cotangent)
        return by_input, jax.lax.psum(by_kernel, AXIS)

    rows = P(AXIS)
    sharded = jax.shard_map(
        per_device,
        mesh=data_mesh(),
        in_specs=(rows, P(), rows),
        out_specs=(rows, P()),
        check_vma=False,
    )
    assert_same(jax.jit(sharded)(x, kernel, cotangent), one[1:])


def lowered(function, platform):
    x, kernel, cotangent = operands()
    program = jax.jit(partial(output_and_gradients, function)).trace(x, kernel, cotangent)
    text = program.lower(lowering_platforms=(platform,)).as_text()
    return text.count("stablehlo.convolution"), text.count("stablehlo.dot_general")


def test_an_accelerator_is_given_the_plain_convolution():
    for platform in ("cuda", "tpu"):
        assert lowered(winograd.convolve, platform) == (3, 0)
    assert lowered(winograd.convolve, "cpu") == (0, 3 * 16)


def test_what_it_does_not_suit_is_computed_plainly():
    def suits(channels=NARROW, dtype=jnp.float32, stride=1, size=3, features=NARROW):
        x = jnp.ones((1, 4, 4, channels), dtype)
        return winograd.suits(x, jnp.ones((size, size, channels, features)), stride)

    assert suits()
    assert not suits(channels=NARROW - 1)
    assert not suits(features=NARROW - 1)
    assert not suits(dtype=jnp.bfloat16)
    assert not suits(stride=2)
    assert not suits(size=7)


@pytest.mark.parametrize(("dtype", "plain"), [(jnp.float32, 0), (jnp.bfloat16, 1)])
def test_the_layer_uses_it_where_it_suits(dtype, plain):
    conv = Conv(NARROW, 3, dtype=dtype)
    x = jnp.ones((1, 4, 4, NARROW))
    variables = conv.init(jax.random.key(0), x)
    text = jax.jit(conv.apply).lower(variables, x).as_text()
    assert text.count("stablehlo.convolution") == plain
    assert conv.apply(variables, x).dtype == dtype
