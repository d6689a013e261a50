"""Embeddings of every engine agree, at float32 and at bfloat16."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from data_prep.errors import InputError, MissingPackageError
from rmgl_jax.export import engines
from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.gallery import embed_command
from rmgl_jax.gallery.embedder import Embedder
from tests.tiny_model import random_variables
from tests.trained_run import run_config

pytestmark = pytest.mark.network

CONFIG = run_config("market1501")
MODEL = TrainedModel(CONFIG, random_variables(CONFIG.model), step=1, digest="")
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 50, 20, 3), dtype=np.uint8)
OTHERS = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def expected():
    return Embedder(MODEL, batch_size=4)(IMAGES)


@pytest.fixture(params=OTHERS)
def engine(request):
    pytest.importorskip("onnx", reason="the extra `export` is not installed")
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return request.param


def test_embedder_gives_the_same_embeddings_with_each_engine(engine, expected):
    found = Embedder(MODEL, batch_size=4, engine=engine)(IMAGES)
    assert (found.shape, found.dtype) == (expected.shape, np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("flip", [True, False])
def test_embedder_passes_flip_to_the_engine(flip, engine):
    mirrored = [
        Embedder(MODEL, batch_size=4, engine=engine, flip=flip)(images)
        for images in (IMAGES, IMAGES[:, :, ::-1])
    ]
    assert np.allclose(*mirrored, atol=1e-4) == flip


def test_embedder_computes_in_bfloat16_with_jax(expected):
    found = Embedder(MODEL, batch_size=4, precision="bfloat16")(IMAGES)
    assert np.abs(found - expected).max() > 1e-4
    assert (found * expected).sum(axis=1).min() > 0.995
    same = replace(MODEL, config=replace(CONFIG, model=replace(CONFIG.model, dtype="bfloat16")))
    np.testing.assert_array_equal(Embedder(same, batch_size=4)(IMAGES), found)


def test_embedder_computes_in_bfloat16_with_openvino_where_the_processor_has_it(expected):
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    try:
        engines.check_engine("openvino", "bfloat16")
    except InputError:
        pytest.skip("this processor has no bfloat16 arithmetic")
    found = Embedder(MODEL, batch_size=4, engine="openvino", precision="bfloat16")(IMAGES)
    assert np.abs(found - expected).max() > 1e-4
    assert (found * expected).sum(axis=1).min() > 0.995


def test_onnxruntime_refuses_bfloat16():
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")
    with pytest.raises(InputError, match=r"onnxruntime .*bfloat16"):
        Embedder(MODEL, engine="onnxruntime", precision="bfloat16")


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"engine": "tensorrt"}, "tensorrt"),
        ({"engine": "openvino", "precision": "float16"}, "float16"),
        ({"precision": "int8"}, "int8"),
    ],
)
def test_embedder_refuses_other_engines_and_types(options, value):
    with pytest.raises(InputError, match=value):
        Embedder(MODEL, **options)


@pytest.mark.parametrize(
    ("name", "extra"), [("onnxruntime", "rmgl_jax[export]"), ("openvino", "rmgl_jax[openvino]")]
)
def test_missing_engine_names_the_extra(name, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError) as raised:
        Embedder(MODEL, engine=name)
    assert extra in str(raised.value)


def test_embed_command_takes_an_engine(engine, expected, tmp_path, monkeypatch):
    from PIL import Image

    from rmgl_jax.export.model_file import save_model

    save_model(MODEL, tmp_path / "model.safetensors")
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    output = tmp_path / "found.npz"
    arguments = [tmp_path / "model.safetensors", tmp_path / "*.png", "--output", output]
    options = ["--engine", engine, "--batch-size", "4"]
    embed_command.main([*map(str, arguments), *options])
    np.testing.assert_allclose(np.load(output)["embedding"], expected, atol=1e-4)
