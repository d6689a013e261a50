"""The table of stages: strides, layers, and depth variants that need no other change."""

import jax
import pytest

from rmgl_jax.config import ModelConfig
from rmgl_jax.models.partition import receptive_field
from rmgl_jax.models.pretrained import weight_map
from rmgl_jax.stages import STAGES, Layer, layers, map_stride, segments
from tests.tiny_model import variable_shapes


def test_strides_of_all_maps():
    assert {name: map_stride(name) for name in STAGES} == {
        "input": 1,
        "stem": 4,
        "res2": 4,
        "res3": 8,
        "res4": 16,
        "res5": 16,
    }


@pytest.mark.parametrize(
    ("branch_after", "expected"),
    [
        ("stem", "local2_res2 local2_res3 local2_res4 local2_res5"),
        ("res2", "res2 local2_res3 local2_res4 local2_res5"),
        ("res3", "res2 res3 local2_res4 local2_res5"),
        ("res4_1", "res2 res3 res4:0-1 local2_res4:1-6 local2_res5"),
        ("res4", "res2 res3 res4 local2_res5"),
    ],
)
def test_branches_separate_where_they_are_configured(branch_after, expected):
    depth = (3, 4, 6, 3)
    found = segments("res5", depth, branch_after)
    names = [
        segment.module("local2")
        + ("" if segment.start == 0 and segment.ends_stage else f":{segment.start}-{segment.stop}")
        for segment in found
    ]
    assert " ".join(names) == expected
    assert sum(segment.stop - segment.start for segment in found) == sum(depth)
    # A stage of one block is not divided.
    assert [s.module("local2") for s in segments("res4", (1, 1, 1, 1), "res4_1")][-1] == "res4"


def test_layers_of_a_stage_have_its_stride_once():
    block = [Layer(1, 1), Layer(3, 1), Layer(1, 1, 4)]
    depth = (1, 2, 1, 1)
    assert layers("res2", depth, stride_in_1x1=False) == block
    assert layers("res3", depth, stride_in_1x1=False) == [
        Layer(1, 1),
        Layer(3, 2),
        block[2],
        *block,
    ]
    assert layers("res3", depth, stride_in_1x1=True) == [Layer(1, 2), *block[1:], *block]


@pytest.mark.parametrize(
    ("depth", "convolutions", "field", "parameters"),
    [
        # torchvision counts 25,557,032 and 44,549,160 parameters, of which `fc` has 2,049,000.
        ((3, 4, 6, 3), 53, 363, 25_557_032 - 2_049_000),
        ((3, 4, 23, 3), 104, 363 + 17 * 2 * 16, 44_549_160 - 2_049_000),
    ],
)
def test_depth_alone_makes_a_resnet_50_or_101(depth, convolutions, field, parameters):
    config = ModelConfig(depth=depth, granularities=(1,))
    assert receptive_field(config) == field
    shapes = variable_shapes(config)
    backbone = {
        (collection, "backbone", *(key.key for key in path))
        for collection in ("params", "batch_stats")
        for path, _ in jax.tree.leaves_with_path(shapes[collection]["backbone"])
    }
    # Each convolution is followed by a batch norm of four arrays.
    names = weight_map(config, granularity=1)
    assert len(names) == 5 * convolutions
    assert set(names.values()) == backbone
    assert f"layer3.{depth[2] - 1}.bn3.running_var" in names
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]["backbone"])) == parameters
