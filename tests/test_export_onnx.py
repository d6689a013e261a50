"""ONNX files compute what JAX computes, in ONNX Runtime and in OpenVINO."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmgl_jax.data.normalization import MEAN, STD, normalize
from rmgl_jax.evaluation.embedding import embed_batch
from rmgl_jax.export.check import check_images
from rmgl_jax.export.onnx import onnx_model
from rmgl_jax.models.rmgl import feature_layout
from tests.engines import ENGINES, run_onnxruntime
from tests.tiny_model import random_variables
from tests.trained_run import run_config

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

pytestmark = pytest.mark.network

TINY = replace(
    run_config("market1501").model,
    image_size=(96, 32),
    granularities=(2, 3),
    paths=("original", "receptive"),
    original_abp="always",
    width=4,
)
"""Both branches, both paths, balanced stripes on the original path."""

# Few, because each is compiled: choices that do not affect each other are made together.
VARIANTS = {
    "published": TINY,
    "original path": replace(
        TINY,
        granularities=(1, 3),
        paths=("original",),
        original_abp="test",
        original_global=False,
        depth=(1, 1, 2, 1),
        branch_after="res4_1",
        global_stride=2,
        global_classifier="pooled",
    ),
    "receptive path": replace(
        TINY, paths=("receptive",), receptive_global=False, fold_at="stem", stride_in_1x1=True
    ),
    "other poolings": replace(
        TINY,
        receptive_stripes=(1, 3),
        receptive_abp="test",
        original_pool="mean",
        original_test_pool="max",
        global_pool="mean",
        reduction_relu=True,
    ),
    "folded input": replace(
        TINY, granularities=(6,), receptive_stripes=(2,), fold_at="input", original_abp="off"
    ),
    "folded output": replace(TINY, fold_at="res5"),
    "res4": replace(
        TINY, granularities=(2,), depth=(2, 1, 2, 1), width=3, fold_at="res4", last_stage="res4"
    ),
}


def pixels(batch, config, seed=0):
    shape = (batch, *config.image_size, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def jax_embeddings(config, variables, images, flip=True):
    """In batches of 3, so that one program is compiled for each configuration."""
    padded = np.concatenate([images, images[:1].repeat(-len(images) % 3, axis=0)])
    parts = [
        embed_batch(config, variables, jnp.asarray(padded[start : start + 3]), flip)
        for start in range(0, len(padded), 3)
    ]
    return np.concatenate(parts)[: len(images)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("engine", ENGINES)
def test_onnx_model_equals_jax(variant, engine):
    config = VARIANTS[variant]
    variables = random_variables(config)
    images = pixels(3, config)
    expected = jax_embeddings(config, variables, images)
    found = ENGINES[engine](onnx_model(config, variables), images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("flip", [True, False])
def test_onnx_model_takes_any_batch_size(flip, engine):
    variables = random_variables(TINY)
    model = onnx_model(TINY, variables, flip=flip)
    images = pixels(5, TINY)
    expected = jax_embeddings(TINY, variables, images, flip)
    for batch in (1, 5):
        found = ENGINES[engine](model, images[:batch])
        np.testing.assert_allclose(found, expected[:batch], atol=1e-4)


def test_onnx_model_averages_mirrored_images_unless_told_not_to():
    variables = random_variables(TINY)
    images = pixels(2, TINY)
    both = run_onnxruntime(onnx_model(TINY, variables), images)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    np.testing.assert_allclose(
        run_onnxruntime(onnx_model(TINY, variables), mirrored), both, atol=1e-5
    )
    single = onnx_model(TINY, variables, flip=False)
    parts = [run_onnxruntime(single, part) for part in (images, mirrored)]
    assert np.abs(parts[0] - parts[1]).max() > 1e-2
    assert np.abs(parts[0] - both).max() > 1e-3


def test_onnx_model_takes_float_and_normalized_images():
    variables = random_variables(TINY)
    images = pixels(2, TINY)
    expected = run_onnxruntime(onnx_model(TINY, variables), images)
    taken = {
        "float": images.astype(np.float32),
        "normalized": np.asarray(normalize(images)).transpose(0, 3, 1, 2),
    }
    for image_input, values in taken.items():
        model = onnx_model(TINY, variables, image_input=image_input)
        np.testing.assert_allclose(run_onnxruntime(model, values), expected, atol=1e-5)


def test_onnx_model_takes_batches_of_boxmot():
    """The steps of BoxMOT's `get_crops`: RGB, /255, ImageNet's statistics, NCHW, float32."""
    variables = random_variables(TINY)
    images = pixels(2, TINY)
    batch = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    model = onnx_model(TINY, variables, image_input="normalized")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (features,) = session.run(
        [session.get_outputs()[0].name], {session.get_inputs()[0].name: (batch - mean) / std}
    )
    expected = jax_embeddings(TINY, variables, images)
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_onnx_model_stores_weights_of_both_paths_once():
    variables = random_variables(TINY)
    graph = onnx_model(TINY, variables).graph
    arrays = [(array.name, onnx.numpy_helper.to_array(array)) for array in graph.initializer]
    kernels = {name: array for name, array in arrays if name.endswith("/weight")}
    expected = [
        leaf.size
        for path, leaf in jax.tree.leaves_with_path(variables["params"])
        if path[-1].key == "kernel" and path[0].key != "classifier"
    ]
    assert sorted(array.size for array in kernels.values()) == sorted(expected)
    assert len({array.tobytes() for array in kernels.values()}) == len(kernels)
    users = {name: sum(name in node.input for node in graph.node) for name in kernels}
    assert users["stem/conv/weight"] == users["res2/block1/conv1/weight"] == 1
    assert users["local2_res4/block1/conv2/weight"] == 2  # original and receptive path
    used = {name for node in graph.node for name in node.input}
    assert used >= {name for name, _ in arrays}


def test_onnx_model_describes_input_and_output():
    model = onnx_model(TINY, random_variables(TINY), metadata={"digest": "abc"})
    (images,), (embedding,) = model.graph.input, model.graph.output
    shapes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (images, embedding)
    ]
    width = len(feature_layout(TINY)) * TINY.embed_dim
    assert (images.name, embedding.name) == ("images", "embedding")
    assert shapes == [["batch", 96, 32, 3], ["batch", width]]
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert {entry.key: entry.value for entry in model.metadata_props} == {"digest": "abc"}


def test_onnx_model_has_no_operation_of_unstable_order():
    """OpenVINO computes ArgMax by a partial sort, which may return any of equal maxima."""
    operators = {node.op_type for node in onnx_model(TINY, random_variables(TINY)).graph.node}
    assert operators.isdisjoint({"ArgMax", "TopK"})


def test_onnx_model_keeps_numbers_without_axes():
    """The axis of CumSum has none by ONNX's definition, whatever engines accept."""
    model = onnx_model(TINY, random_variables(TINY))
    dims = {array.name: list(array.dims) for array in model.graph.initializer}
    (axis,) = {node.input[1] for node in model.graph.node if node.op_type == "CumSum"}
    assert dims[axis] == []


def test_onnx_model_computes_in_float32():
    config = replace(TINY, dtype="bfloat16")
    variables = random_variables(config)
    images = check_images(config)
    found = run_onnxruntime(onnx_model(config, variables), images)
    expected = jax_embeddings(TINY, variables, images)
    np.testing.assert_allclose(found, expected, atol=1e-4)
