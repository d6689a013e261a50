"""Kernels for CPUs: equal to XLA's own operations, absent from other programs, switched off."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_prep.errors import InputError
from rmgl_jax import cpu
from rmgl_jax.cpu import plain
from rmgl_jax.cpu.pointwise import product
from rmgl_jax.models.rmgl import RMGL
from rmgl_jax.training.step import create_state, state_shapes
from tests.tiny_model import TINY, random_images, random_variables
from tests.trees import assert_trees_close

pytestmark = pytest.mark.network

# 64 inner channels in res3 and 128 in res4, both with 3x3 convolutions of stride 1: the two forms
# of Winograd's convolution.
WIDE = replace(
    TINY,
    image_size=(64, 32),
    granularities=(1,),
    width=32,
    last_stage="res4",
    stride_in_1x1=True,
)


def trace_gradient(variables, images):
    def loss(params):
        output, updates = RMGL(WIDE).apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return (output.logits**2).mean(), (output.embedding, updates)

    return jax.jit(jax.value_and_grad(loss, has_aux=True)).trace(variables["params"])


def count(text, operation):
    return len(re.findall(rf"stablehlo\.{operation}\b", text))


def test_network_without_kernels_is_plain_and_trains_equally(monkeypatch):
    variables, images = random_variables(WIDE), random_images(16, WIDE)
    with_kernels = trace_gradient(variables, images)
    monkeypatch.setenv("RMGL_CPU_KERNELS", "0")
    plain_network = trace_gradient(variables, images)

    for platform in ("cpu", "cuda"):
        text = plain_network.lower(lowering_platforms=(platform,)).as_text()
        # 1 + 3 x 4 convolutions and their gradients except that by the images. The other products
        # are those of the two heads.
        assert count(text, "convolution") == 3 * 13 - 1
        assert count(text, "dot_general") == 3 * 2
        assert count(text, "select_and_scatter") == 1
    text = with_kernels.lower(lowering_platforms=("cpu",)).as_text()
    assert count(text, "dot_general") > 5 * 16
    assert count(text, "select_and_scatter") == 0

    found, gradient = with_kernels.lower().compile()(variables["params"])
    expected, expected_gradient = plain_network.lower().compile()(variables["params"])
    assert_trees_close(found, expected, rtol=1e-5, atol=1e-5)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected_gradient))
    assert_trees_close(gradient, expected_gradient, rtol=1e-5, atol=1e-5 * largest)


def test_switch_takes_0_or_1(monkeypatch):
    monkeypatch.delenv("RMGL_CPU_KERNELS", raising=False)
    assert cpu.enabled()
    for value, expected in (("1", True), ("0", False)):
        monkeypatch.setenv("RMGL_CPU_KERNELS", value)
        assert cpu.enabled() == expected
    monkeypatch.setenv("RMGL_CPU_KERNELS", "off")
    with pytest.raises(InputError, match="0 or 1, got 'off'"):
        cpu.convolution(jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 3, 5)))


@pytest.mark.parametrize("size", [(6, 4), (7, 5), (1, 1)])
def test_max_pool_gradient_goes_to_the_first_maximum(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-3, 4, (2, *size, 3)), jnp.float32)  # with many equal values
    out, pull = jax.vjp(plain.max_pool, x)
    own, own_pull = jax.vjp(cpu.max_pool, x)
    cotangent = jnp.asarray(rng.integers(-9, 10, out.shape), jnp.float32)
    np.testing.assert_array_equal(own, out)
    np.testing.assert_array_equal(jax.jit(own_pull)(cotangent)[0], pull(cotangent)[0])


def test_max_pool_on_accelerators_is_that_of_xla():
    traced = jax.jit(jax.grad(lambda x: cpu.max_pool(x).sum())).trace(jnp.ones((1, 4, 4, 3)))
    assert "select_and_scatter" in traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "select_and_scatter" not in traced.lower(lowering_platforms=("cpu",)).as_text()


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_1x1_is_a_matrix_product(stride):
    x, kernel = jnp.ones((2, 4, 4, 3)), jnp.ones((1, 1, 3, 5))
    text = jax.jit(cpu.convolution, static_argnums=2).lower(x, kernel, stride).as_text()
    assert "stablehlo.dot_general" in text
    assert "stablehlo.convolution" not in text


@pytest.mark.parametrize(("channels", "features"), [(5, 3), (3, 5)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_product_has_the_gradients_of_the_plain_product(channels, features, dtype):
    rng = np.random.default_rng(0)
    shapes = [(16, channels), (channels, features), (16, features)]
    x, kernel, cotangent = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    found = jax.vjp(product, x, kernel)[1](cotangent)
    expected = jax.vjp(jnp.dot, x, kernel)[1](cotangent)
    assert [leaf.dtype for leaf in found] == [dtype, dtype]
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    found, expected = (jax.tree.map(np.float32, tree) for tree in (found, expected))
    assert_trees_close(found, expected, rtol=tolerance, atol=tolerance)


def test_initialization_is_that_of_the_fully_optimized_program():
    """Up to rounding: jax 0.12 rounds a few values otherwise, jax 0.10 none."""
    config = replace(WIDE, width=4)
    images = jnp.zeros((1, *config.image_size, 3))
    optimized = jax.jit(
        lambda key: RMGL(config).init(key, images, train=False),
        compiler_options={"xla_backend_optimization_level": 3},
    )
    optimizer = optax.sgd(0.1, momentum=0.9)
    state = create_state(config, optimizer, seed=5)
    found = {"params": state.params, "batch_stats": state.batch_stats}
    assert_trees_close(found, optimized(jax.random.key(5)), rtol=1e-6)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)
    assert state_shapes(config, optimizer) == shapes


def test_initialization_is_compiled_as_usual_without_kernels(monkeypatch):
    assert cpu.options_for_one_call() == {"xla_backend_optimization_level": 1}
    monkeypatch.setenv("RMGL_CPU_KERNELS", "0")
    assert cpu.options_for_one_call() is None
