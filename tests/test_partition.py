"""Folding moves no data, and no information between stripes; Eqs. 5 to 7."""

import re
from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmgl_jax.config import ModelConfig
from rmgl_jax.models.convolution import Conv
from rmgl_jax.models.partition import (
    fold,
    receptive_field,
    restricts_receptive_field,
    stripe_receptive_region,
    unfold,
)
from rmgl_jax.models.resnet import Stage
from rmgl_jax.models.rmgl import RMGL, feature_layout
from tests.tiny_model import TINY, random_images, random_variables, variable_shapes

pytestmark = pytest.mark.network


def test_fold_makes_the_stripes_of_an_image_adjacent_in_the_batch():
    maps = np.random.default_rng(0).random((2, 6, 2, 3), np.float32)
    folded = fold(maps, 3)
    assert folded.shape == (6, 2, 2, 3)
    for image in range(2):
        for stripe in range(3):
            expected = maps[image, 2 * stripe : 2 * stripe + 2]
            np.testing.assert_array_equal(folded[3 * image + stripe], expected)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 4))
def test_unfold_is_the_inverse_of_fold(batch, stripes, rows):
    maps = np.random.default_rng(0).random((batch, stripes * rows, 2, 3), np.float32)
    np.testing.assert_array_equal(unfold(fold(maps, stripes), stripes), maps)


def test_folding_compiles_to_no_data_movement():
    stage = Stage(1, 4, 1, False, conv=Conv, norm=nn.BatchNorm)
    maps = jnp.ones((2, 12, 4, 16))
    variables = jax.eval_shape(partial(stage.init, train=False), jax.random.key(0), maps)

    def partitioned(variables, maps):
        return unfold(stage.apply(variables, fold(maps, 3), False), 3)

    # Alone, both are a bitcast: the same bytes under another shape.
    for function in (lambda m: fold(m, 3), lambda m: unfold(m, 2)):
        text = jax.jit(function).lower(maps).compile().as_text()
        assert "bitcast(" in text
        assert not moves(text) - {"copy"}, text  # the copy is of the argument to the result
    # Between layers not even that: the partitioned stage moves what a stage of stripes moves.
    plain = jax.jit(lambda v, m: stage.apply(v, m, False)).lower(variables, fold(maps, 3))
    whole = jax.jit(partitioned).lower(variables, maps)
    assert count_moves(whole.compile().as_text()) == count_moves(plain.compile().as_text())


def moves(text: str) -> set[str]:
    """Operations of an HLO program that only move data."""
    return set(re.findall(r"\b(copy|transpose|gather|concatenate|dynamic-slice)\(", text))


def count_moves(text: str) -> int:
    return len(re.findall(r"\b(?:copy|transpose|gather|concatenate|dynamic-slice)\(", text))


def test_the_receptive_path_adds_no_parameter():
    def shapes(paths):
        shapes = variable_shapes(replace(TINY, paths=paths))
        return {collection: tree["backbone"] for collection, tree in shapes.items()}

    both = shapes(("original", "receptive"))
    assert shapes(("original",)) == both
    assert shapes(("receptive",)) == both


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # By hand for ResNet-50: 7, +2*2 (pool), +3*2*4 (res2), +8+3*2*8, +16+5*2*16, +3*2*16.
        (ModelConfig(), 363),
        # The stride before the 3x3 doubles the step of res3's and res4's first one.
        (ModelConfig(stride_in_1x1=True), 387),
        (ModelConfig(last_stage="res4"), 267),
    ],
)
def test_receptive_field_of_resnet50(config, expected):
    assert receptive_field(config) == expected


def test_receptive_field_between_maps():
    config = ModelConfig()
    assert receptive_field(config, stop="input") == 1
    assert receptive_field(config, stop="stem") == 11
    assert receptive_field(config, stop="res2") == 35
    assert receptive_field(config, start="res2") == 83
    assert receptive_field(config, start="res5") == 1
    with pytest.raises(ValueError, match="in order, got res3, stem"):
        receptive_field(config, start="res3", stop="stem")
    with pytest.raises(ValueError, match="start and stop must be maps of"):
        receptive_field(replace(config, last_stage="res4"), stop="res5")


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_receptive_field_is_what_a_gradient_reaches(stride_in_1x1):
    config = replace(
        TINY,
        image_size=(160, 16),
        granularities=(2,),
        paths=("original",),
        stride_in_1x1=stride_in_1x1,
        last_stage="res4",
    )
    model = RMGL(config)
    variables = random_variables(config)

    @jax.jit
    def reach(images):
        def middle(images):
            maps = model.apply(variables, images, method="feature_maps")
            return maps["local2/original"][:, 5].sum()

        return jnp.abs(jax.grad(middle)(images)).sum((0, 2, 3)) > 0

    rows = np.flatnonzero(reach(random_images(16, config)))
    assert rows[-1] - rows[0] + 1 == receptive_field(config)


def test_stripe_receptive_region_of_the_paper_s_network():
    config = ModelConfig()
    # Eq. 6: r + (h / S - 1) times the stride.
    assert stripe_receptive_region(config, 2, "input") == 1 + 191
    assert stripe_receptive_region(config, 2, "res2") == 35 + 47 * 4
    assert stripe_receptive_region(config, 3, "res2") == 35 + 31 * 4
    assert stripe_receptive_region(config, 3, "res3") == 91 + 15 * 8
    assert stripe_receptive_region(config, 2, "res5") == 363 + 11 * 16
    with pytest.raises(ValueError, match="5 stripes do not divide the map 'res2' of height 96"):
        stripe_receptive_region(config, 5, "res2")


def test_where_folding_restricts_the_receptive_field():
    config = ModelConfig()
    # Eq. 7: 83 rows of res2 against 48 or 32; of the input 363 against 192.
    assert restricts_receptive_field(config, 2, "res2")
    assert restricts_receptive_field(config, 2, "input")
    assert not restricts_receptive_field(config, 1, "input")  # 363 < 384
    # Folding the output cuts nothing.
    assert not restricts_receptive_field(config, 2, "res5")
    # 7 rows of res4 against 12 or 8, and 4.
    assert not restricts_receptive_field(config, 3, "res4")
    assert restricts_receptive_field(config, 6, "res4")


@pytest.mark.parametrize(
    ("fold_at", "height", "shape"), [("input", 96, (32, 3)), ("res2", 24, (8, 16))]
)
def test_features_of_receptive_stripes_depend_on_their_own_rows_only(fold_at, height, shape):
    """Gradients of every feature with respect to the map that the receptive path folds."""
    # Without ABP, whose stripes may be low and far from their uniform positions.
    config = replace(TINY, fold_at=fold_at, granularities=(3,), original_abp="off")
    model = RMGL(config)
    variables, images = random_variables(config), random_images(8, config)

    @jax.jit
    def reach(shift):
        """True where row h of the folded map changes feature n: `[N, H]`."""

        def features(shift):
            def shifted(next_function, args, kwargs, context):
                out = next_function(*args, **kwargs)
                return out + shift if context.module.name == "res2" else out

            if fold_at == "input":
                output = model.apply(variables, images + shift)
            else:
                with nn.intercept_methods(shifted):
                    output = model.apply(variables, images)
            return output.features.sum((0, 2))

        return jnp.abs(jax.jacrev(features)(shift)).sum((1, 3, 4)) > 0

    rows = np.asarray(reach(jnp.zeros((8, height, *shape))))
    size = height // 3
    for spec, seen in zip(feature_layout(config), rows, strict=True):
        own = np.zeros(height, bool)
        own[size * (spec.stripe - 1) : size * spec.stripe] = True
        if spec.stripe == 0:
            assert seen.all(), spec.name
        elif spec.path == "receptive":
            assert seen[own].all(), spec.name
            assert not seen[~own].any(), spec.name
        else:
            assert seen[~own].any(), spec.name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fold(np.ones((6, 2, 3)), 2), r"\[B, H, W, C\], got shape \(6, 2, 3\)"),
        (lambda: fold(np.ones((1, 6, 2, 3)), 4), "4 stripes do not divide maps of height 6"),
        (lambda: fold(np.ones((1, 6, 2, 3)), 0), "0 stripes do not divide"),
        (lambda: unfold(np.ones((6, 2, 3)), 2), r"\[B\*S, H, W, C\], got shape \(6, 2, 3\)"),
        (lambda: unfold(np.ones((3, 6, 2, 3)), 2), "batch of 3 maps .* 2 stripes"),
    ],
)
def test_bad_input_raises_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
