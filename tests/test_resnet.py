"""Convolutions against plain sums, and the stages' shapes, strides and precision."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmgl_jax.cpu.max_pooling import max_pool
from rmgl_jax.models.convolution import Conv, product
from rmgl_jax.models.resnet import Bottleneck, Stage, Stem


def convolution_by_sums(x, kernel, stride):
    """`[B, H, W, C]` and HWIO, zeros around, one output after another."""
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
def test_convolution_is_the_sum_it_should_be(size, stride):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 8, 6, 3)).astype(np.float32)
    kernel = random.normal(size=(size, size, 3, 5)).astype(np.float32)
    conv = Conv(5, size, stride)
    out = conv.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_allclose(out, convolution_by_sums(x, kernel, stride), rtol=1e-4, atol=1e-4)

    # Its derivatives are those of the sum too, which is linear in both.
    cotangent = random.normal(size=out.shape).astype(np.float32)
    shift, tilt = (random.normal(size=a.shape).astype(np.float32) for a in (x, kernel))

    def weighted(x, kernel):
        return (conv.apply({"params": {"kernel": kernel}}, x) * cotangent).sum()

    by_x, by_kernel = jax.grad(weighted, argnums=(0, 1))(x, kernel)
    expected_by_x = (convolution_by_sums(shift, kernel, stride) * cotangent).sum()
    expected_by_kernel = (convolution_by_sums(x, tilt, stride) * cotangent).sum()
    np.testing.assert_allclose((by_x * shift).sum(), expected_by_x, rtol=1e-3)
    np.testing.assert_allclose((by_kernel * tilt).sum(), expected_by_kernel, rtol=1e-3)


def test_convolution_in_bfloat16_keeps_a_float32_kernel():
    x = jnp.ones((1, 4, 4, 3))
    variables = Conv(5, 3, dtype=jnp.bfloat16).init(jax.random.key(0), x)
    assert variables["params"]["kernel"].dtype == jnp.float32
    assert Conv(5, 3, dtype=jnp.bfloat16).apply(variables, x).dtype == jnp.bfloat16


def test_a_one_by_one_convolution_is_a_matrix_product():
    for stride in (1, 2):
        program = jax.jit(Conv(5, 1, stride).apply).lower(
            {"params": {"kernel": jnp.ones((1, 1, 3, 5))}}, jnp.ones((2, 4, 4, 3))
        )
        assert "stablehlo.dot_general" in program.as_text()
        assert "stablehlo.convolution" not in program.as_text()


@pytest.mark.parametrize(("channels", "features"), [(5, 3), (3, 5)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_product_has_the_gradients_of_the_plain_one(channels, features, dtype):
    rng = np.random.default_rng(0)
    shapes = [(16, channels), (channels, features), (16, features)]
    x, kernel, cotangent = (jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes)
    for a, b in zip(
        jax.vjp(product, x, kernel)[1](cotangent),
        jax.vjp(jnp.dot, x, kernel)[1](cotangent),
        strict=True,
    ):
        assert a.dtype == b.dtype == dtype
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=1e-2, atol=1e-2)
        if dtype == jnp.float32:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def shapes(module, x):
    return jax.eval_shape(
        partial(module.init_with_output, train=False), jax.random.key(0), jnp.ones(x)
    )


def test_the_stem_divides_the_size_by_four():
    out, _ = shapes(Stem(8, Conv, nn.BatchNorm), (2, 32, 16, 3))
    assert out.shape == (2, 8, 4, 8)


@pytest.mark.parametrize("size", [(6, 4), (7, 5), (1, 1)])
def test_the_gradient_of_max_pooling_goes_to_the_first_maximum(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(-3, 4, (2, *size, 3)), jnp.float32)  # with many equal values

    def plain(x):
        return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    out, pull = jax.vjp(plain, x)
    own, own_pull = jax.vjp(max_pool, x)
    np.testing.assert_array_equal(own, out)
    cotangent = jnp.asarray(rng.integers(-9, 10, out.shape), jnp.float32)
    np.testing.assert_array_equal(own_pull(cotangent)[0], pull(cotangent)[0])


def test_an_accelerator_pools_as_xla_does():
    program = jax.jit(jax.grad(lambda x: max_pool(x).sum())).trace(jnp.ones((1, 4, 4, 3)))
    assert "select_and_scatter" in program.lower(lowering_platforms=("cuda",)).as_text()
    assert "select_and_scatter" not in program.lower(lowering_platforms=("cpu",)).as_text()


def test_the_stem_pools_the_maximum_of_three_rows_and_columns():
    stem = Stem(1, partial(PassThrough), partial(PassThrough))
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    np.testing.assert_array_equal(
        stem.apply({}, x, False)[0, :, :, 0], [[7, 9, 11], [19, 21, 23], [31, 33, 35]]
    )


class PassThrough(nn.Module):
    """Stands in for a convolution or a batch norm that changes nothing."""

    features: int = 0
    kernel_size: int = 0
    strides: int = 1

    def __call__(self, x, use_running_average=True):
        return x


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_a_stage_strides_once_and_projects_once(stride_in_1x1):
    stage = Stage(2, 4, 2, stride_in_1x1, Conv, nn.BatchNorm)
    out, variables = shapes(stage, (2, 8, 4, 8))
    assert out.shape == (2, 4, 2, 16)
    params = variables["params"]
    assert set(params) == {"block1", "block2"}
    assert params["block1"]["conv_shortcut"]["kernel"].shape == (1, 1, 8, 16)
    assert "conv_shortcut" not in params["block2"]
    assert {
        name: params["block2"][name]["kernel"].shape for name in ("conv1", "conv2", "conv3")
    } == {
        "conv1": (1, 1, 16, 4),
        "conv2": (3, 3, 4, 4),
        "conv3": (1, 1, 4, 16),
    }


def test_the_stride_is_where_it_is_configured():
    """The two variants have the same parameters and compute different functions."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 4, 8)), jnp.float32)
    make = partial(Bottleneck, 4, 2, True, conv=Conv, norm=nn.BatchNorm)
    variables = make(stride_in_1x1=False).init(jax.random.key(0), x, False)
    in_3x3 = make(stride_in_1x1=False).apply(variables, x, False)
    in_1x1 = make(stride_in_1x1=True).apply(variables, x, False)
    assert not np.allclose(in_3x3, in_1x1)
    # With its stride in the first convolution a block never looks at odd rows and columns.
    gone = x.at[:, 1::2].set(0).at[:, :, 1::2].set(0)
    np.testing.assert_allclose(
        make(stride_in_1x1=True).apply(variables, gone, False), in_1x1, rtol=1e-6
    )


def test_without_its_branch_a_block_is_its_shortcut():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 16)), jnp.float32)
    block = Bottleneck(4, 1, False, False, conv=Conv, norm=nn.BatchNorm)
    variables = block.init(jax.random.key(0), x, False)
    variables["params"]["bn3"]["scale"] = jnp.zeros(16)
    np.testing.assert_array_equal(block.apply(variables, x, False), nn.relu(x))
