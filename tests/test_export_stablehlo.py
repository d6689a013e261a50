"""StableHLO programs compute what JAX computes, for any batch size."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rmgl_jax
from rmgl_jax.evaluation.embedding import embed_batch
from rmgl_jax.export import stablehlo
from tests.tiny_model import random_variables
from tests.trained_run import run_config

pytest.importorskip("flatbuffers", reason="the extra `export` is not installed")

pytestmark = pytest.mark.network

CONFIG = replace(
    run_config("market1501").model,
    granularities=(2,),
    paths=("original", "receptive"),
    original_abp="always",
    last_stage="res4",
)


@pytest.fixture(scope="module")
def variables():
    return random_variables(CONFIG)


@pytest.fixture(scope="module")
def serialized(variables):
    return stablehlo.serialize(stablehlo.export_program(CONFIG, variables))


def pixels(batch):
    shape = (batch, *CONFIG.image_size, 3)
    return np.random.default_rng(batch).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("batch", [1, 5])
def test_stablehlo_program_equals_jax(batch, variables, serialized):
    images = pixels(batch)
    found = stablehlo.deserialize(serialized).call(images)
    expected = embed_batch(CONFIG, variables, jnp.asarray(images))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_stablehlo_program_is_for_all_platforms(serialized):
    program = stablehlo.deserialize(serialized)
    assert program.platforms == ("cpu", "cuda", "tpu")
    (images,) = program.in_avals
    assert (images.dtype, images.shape[1:]) == (np.uint8, (*CONFIG.image_size, 3))
    assert not isinstance(images.shape[0], int)


def test_stablehlo_program_names_no_directory(serialized):
    for module in (rmgl_jax, jax):
        assert str(Path(module.__file__).parent).encode() not in serialized


@pytest.mark.parametrize("value", ["1", None])
def test_stablehlo_program_has_no_kernels_for_cpus(value, variables, monkeypatch):
    """It is the program without them, whatever the environment and earlier calls."""
    embed_batch(CONFIG, variables, jnp.asarray(pixels(1)))
    if value is None:
        monkeypatch.delenv("RMGL_CPU_KERNELS", raising=False)
    else:
        monkeypatch.setenv("RMGL_CPU_KERNELS", value)
    text = stablehlo.export_program(CONFIG, variables).mlir_module()
    assert os.environ.get("RMGL_CPU_KERNELS") == value
    # The kernels compute 1x1 convolutions, which are the most, as matrix products.
    assert text.count("stablehlo.convolution") > 2 * text.count("stablehlo.dot_general")


def test_stablehlo_program_without_flip(variables):
    images = pixels(2)
    program = stablehlo.export_program(CONFIG, variables, flip=False)
    expected = embed_batch(CONFIG, variables, jnp.asarray(images), False)
    np.testing.assert_allclose(program.call(images), expected, atol=1e-5)


def test_stablehlo_file_runs_without_this_package(variables, serialized, tmp_path):
    images = pixels(3)
    (tmp_path / "program").write_bytes(serialized)
    np.save(tmp_path / "images.npy", images)
    script = (
        "import jax.export, numpy as np, sys\n"
        "program = jax.export.deserialize(bytearray(open('program', 'rb').read()))\n"
        "np.save('found.npy', program.call(np.load('images.npy')))\n"
        "assert 'rmgl_jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    expected = embed_batch(CONFIG, variables, jnp.asarray(images))
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-5)
