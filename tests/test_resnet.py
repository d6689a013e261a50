"""Convolutions against plain sums, and the stages' shapes, strides and precision."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmgl_jax.models.convolution import Conv
from rmgl_jax.models.resnet import Bottleneck, Stage, Stem
from tests.tiny_model import random_like
from tests.trees import assert_trees_close

pytestmark = pytest.mark.network


def convolution_by_sums(x, kernel, stride):
    """`[B, H, W, C]` and HWIO, padded by zeros, one output after another."""
    size = kernel.shape[0]
    pad = (size - 1) // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    out = np.zeros((x.shape[0], rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            patch = padded[:, top : top + size, left : left + size]
            out[:, i, j] = np.einsum("bhwc,hwcd->bd", patch, kernel)
    return out


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_conv_is_a_plain_sum(size, stride):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 8, 6, 3)).astype(np.float32)
    kernel = random.normal(size=(size, size, 3, 5)).astype(np.float32)
    shift, tilt = (random.normal(size=a.shape).astype(np.float32) for a in (x, kernel))
    expected = convolution_by_sums(x, kernel, stride)
    cotangent = random.normal(size=expected.shape).astype(np.float32)

    @jax.jit
    def weighted_and_gradients(x, kernel):
        def weighted(x, kernel):
            out = Conv(5, size, stride).apply({"params": {"kernel": kernel}}, x)
            return (out * cotangent).sum(), out

        (_, out), gradients = jax.value_and_grad(weighted, (0, 1), has_aux=True)(x, kernel)
        return out, *gradients

    out, by_x, by_kernel = weighted_and_gradients(x, kernel)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)
    # The sum is linear in both operands, so its derivatives are sums too.
    expected_by_x = (convolution_by_sums(shift, kernel, stride) * cotangent).sum()
    expected_by_kernel = (convolution_by_sums(x, tilt, stride) * cotangent).sum()
    np.testing.assert_allclose((by_x * shift).sum(), expected_by_x, rtol=1e-3)
    np.testing.assert_allclose((by_kernel * tilt).sum(), expected_by_kernel, rtol=1e-3)


def test_conv_in_bfloat16_keeps_a_float32_kernel():
    conv = Conv(5, 3, dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(
        conv.init_with_output, jax.random.key(0), jnp.ones((1, 4, 4, 3))
    )
    assert variables["params"]["kernel"].dtype == jnp.float32
    assert out.dtype == jnp.bfloat16


def shapes(module, x):
    return jax.eval_shape(
        partial(module.init_with_output, train=False), jax.random.key(0), jnp.ones(x)
    )


def test_stem_divides_the_size_by_four():
    out, _ = shapes(Stem(8, Conv, nn.BatchNorm), (2, 32, 16, 3))
    assert out.shape == (2, 8, 4, 8)


class PassThrough(nn.Module):
    """Stands in for a convolution or a batch norm that changes nothing."""

    features: int = 0
    kernel_size: int = 0
    strides: int = 1

    def __call__(self, x, use_running_average=True):
        return x


def test_stem_pools_the_maximum_of_three_rows_and_columns():
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    np.testing.assert_array_equal(
        Stem(1, PassThrough, PassThrough).apply({}, x, False)[0, :, :, 0],
        [[7, 9, 11], [19, 21, 23], [31, 33, 35]],
    )


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_stage_strides_once_and_projects_once(stride_in_1x1):
    stage = Stage(2, 4, 2, stride_in_1x1, Conv, nn.BatchNorm)
    out, variables = shapes(stage, (2, 8, 4, 8))
    assert out.shape == (2, 4, 2, 16)
    kernels = {
        block: {name: layer["kernel"].shape for name, layer in layers.items() if "conv" in name}
        for block, layers in variables["params"].items()
    }
    block = {"conv1": (1, 1, 16, 4), "conv2": (3, 3, 4, 4), "conv3": (1, 1, 4, 16)}
    projecting = {"conv1": (1, 1, 8, 4), "conv_shortcut": (1, 1, 8, 16)}
    assert kernels == {"block1": block | projecting, "block2": block}


def test_bottleneck_has_its_stride_where_it_is_configured():
    """The two variants have the same parameters and compute different functions."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 4, 8)), jnp.float32)
    # With the stride in the first convolution a block never looks at odd rows and columns.
    without_odd = x.at[:, 1::2].set(0).at[:, :, 1::2].set(0)
    make = partial(Bottleneck, 4, 2, True, conv=Conv, norm=nn.BatchNorm)
    variables = random_like(shapes(make(stride_in_1x1=False), x.shape)[1])

    def outputs(stride_in_1x1):
        apply = jax.jit(partial(make(stride_in_1x1=stride_in_1x1).apply, train=False))
        return apply(variables, x), apply(variables, without_odd)

    np.testing.assert_array_equal(*outputs(stride_in_1x1=True))
    whole, odd_missing = outputs(stride_in_1x1=False)
    assert not np.allclose(whole, odd_missing)


def test_bottleneck_without_its_residual_is_its_shortcut():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 16)), jnp.float32)
    block = Bottleneck(4, 1, False, False, conv=Conv, norm=nn.BatchNorm)
    variables = random_like(shapes(block, x.shape)[1])
    variables["params"]["bn3"] = jax.tree.map(jnp.zeros_like, variables["params"]["bn3"])
    out = jax.jit(partial(block.apply, train=False))(variables, x)
    np.testing.assert_array_equal(out, nn.relu(x))


def test_stage_with_recomputation_has_the_same_values_and_gradients():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 4, 8)), jnp.float32)
    make = partial(Stage, 1, 4, 2, False, Conv, nn.BatchNorm)
    variables = random_like(shapes(make(), x.shape)[1])

    def run(remat):
        def loss(params, x):
            out, updates = make(remat=remat).apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return (out**2).mean(), updates

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(variables["params"], x)

    assert_trees_close(run(remat=True), run(remat=False), rtol=1e-4, atol=1e-5)
