"""The command `rmgl export`."""

import shutil
import sys
from dataclasses import replace

import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from data_prep.errors import InputError, MissingPackageError, WriteError
from rmgl_jax import cli
from rmgl_jax.evaluation.embedding import embed_batch
from rmgl_jax.export.check import ExportError, check_images, compare
from rmgl_jax.export.command import ExportOptions, export
from rmgl_jax.export.files import export_onnx
from rmgl_jax.export.model_file import load_model
from rmgl_jax.models.folding import fold_batch_norm
from tests.tiny_model import TINY, random_variables
from tests.trained_run import write_run

onnx = pytest.importorskip("onnx", reason="the extra `export` is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "market"
    write_run(workdir, "market1501", {3: 0.9, 6: 0.5})
    return workdir


@pytest.fixture(scope="module")
def model(run):
    return load_model(run)


def expected_embeddings(model, images, flip=True):
    return embed_batch(model.config.model, model.variables, jnp.asarray(images), flip)


@pytest.mark.parametrize("flip", [True, False])
def test_export_writes_onnx(flip, run, model, tmp_path, capsys):
    output = tmp_path / "made" / "model.onnx"
    flags = [] if flip else ["--no-flip"]
    cli.main(["export", str(run), "--format", "onnx", "--output", str(output), *flags])
    printed = capsys.readouterr().out
    assert str(output) in printed.replace("\n", "")
    assert "largest difference" in printed
    images = check_images(model.config.model)
    (found,) = onnxruntime.InferenceSession(output).run(["embedding"], {"images": images})
    np.testing.assert_allclose(found, expected_embeddings(model, images, flip), atol=1e-4)
    metadata = {entry.key: entry.value for entry in onnx.load(output).metadata_props}
    assert (metadata["digest"], metadata["step"]) == (model.digest, "6")
    assert (metadata["flip"], metadata["input"]) == (str(flip), "uint8")
    assert [path.name for path in output.parent.iterdir()] == ["model.onnx"]


def test_export_writes_stablehlo(run, model, tmp_path, capsys):
    pytest.importorskip("flatbuffers", reason="the extra `export` is not installed")
    output = tmp_path / "model.stablehlo"
    cli.main(["export", str(run), "--format", "stablehlo", "--output", str(output)])
    assert "largest difference" in capsys.readouterr().out
    images = check_images(model.config.model)
    found = jax.export.deserialize(bytearray(output.read_bytes())).call(images)
    np.testing.assert_allclose(found, expected_embeddings(model, images), atol=1e-5)


@pytest.mark.parametrize(("flags", "step"), [([], 6), (["--best"], 3), (["--step", "3"], 3)])
def test_export_writes_model_file_and_folder(flags, step, run, tmp_path):
    for output in (tmp_path / "model.safetensors", tmp_path / "folder"):
        cli.main(["export", str(run), "--format", "model", "--output", str(output), *flags])
        assert load_model(output).step == step
    assert (tmp_path / "folder" / "README.md").is_file()


@pytest.mark.parametrize("image_input", ["float", "normalized"])
def test_export_takes_other_inputs(image_input, run, tmp_path):
    output = tmp_path / "model.onnx"
    (_, agreement) = export(ExportOptions(run, "onnx", output, input=image_input))
    assert "3 images" in agreement
    (images,) = onnx.load(output).graph.input
    assert images.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "stablehlo", "input": "float"}, "--input float"),
        ({"format": "model", "flip": False}, "--no-flip"),
        ({"format": "model", "output": "model.pth"}, r"model\.pth"),
        ({"format": "onnx", "output": "model.safetensors"}, r"model\.safetensors"),
        ({"format": "stablehlo", "output": "model.safetensors"}, r"model\.safetensors"),
    ],
)
def test_export_rejects_options_that_do_not_apply(options, message, run, tmp_path):
    options["output"] = tmp_path / options.get("output", "model.onnx")
    with pytest.raises(InputError, match=message):
        export(ExportOptions(run=run, **options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "model.safetensors"])
def test_export_does_not_replace_what_it_reads(name, run, tmp_path):
    folder = tmp_path / "folder"
    export(ExportOptions(run=run, format="model", output=folder))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match="folder"):
        export(ExportOptions(run=folder, format="model", output=folder / name))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_export_into_a_run_directory_can_be_repeated(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    for _ in range(2):
        export(ExportOptions(run=copy, format="model", output=copy / "model.safetensors"))
    assert load_model(copy / "model.safetensors").digest == load_model(run).digest


def test_model_folder_replaces_model_cards_only(run, tmp_path):
    (tmp_path / "README.md").write_text("my project")
    with pytest.raises(InputError, match=r"README\.md"):
        export(ExportOptions(run=run, format="model", output=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    (tmp_path / "README.md").unlink()
    for _ in range(2):
        export(ExportOptions(run=run, format="model", output=tmp_path))


def test_export_leaves_no_file_that_differs_from_jax(model, tmp_path):
    """Weights that are not numbers differ from everything."""
    broken = replace(model, variables=jax.tree.map(lambda leaf: leaf * np.nan, model.variables))
    output = tmp_path / "model.onnx"
    output.write_bytes(b"before")
    with pytest.raises(ExportError, match="differs from JAX"):
        export_onnx(broken, output)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        ("model.onnx", b"before")
    ]


@pytest.mark.parametrize("change", [lambda x: x * np.nan, lambda x: x[:1], lambda x: x + 2e-4])
def test_compare_rejects_other_embeddings(change, model):
    config, variables = model.config.model, model.variables

    def run(images):
        return change(np.asarray(expected_embeddings(model, images)))

    with pytest.raises(ExportError):
        compare(config, variables, run, engine="engine", flip=True)


def test_compare_measures_differences(model):
    def run(images):
        return np.asarray(expected_embeddings(model, images)) + np.float32(1e-5)

    found = compare(model.config.model, model.variables, run, engine="engine", flip=True)
    assert (found.engine, found.images) == ("engine", 3)
    assert found.difference == pytest.approx(1e-5, rel=0.05)
    assert found.cosine == pytest.approx(1, abs=1e-3)


def test_compare_in_bfloat16_allows_for_stripes_that_folding_moves():
    """Folded and unfolded kernels round differently, which moves a stripe with some weights."""
    config = replace(TINY, dtype="bfloat16")
    far = 0.0
    for seed in range(15, 19):
        variables = random_variables(config, seed)
        folded = fold_batch_norm(variables)

        def run(images, folded=folded):
            return np.asarray(embed_batch(config, folded, jnp.asarray(images), True))

        assert compare(config, variables, run, engine="engine", flip=True).difference == 0
        unfolded = embed_batch(config, variables, jnp.asarray(check_images(config)), True)
        far = max(far, np.abs(run(check_images(config)) - unfolded).max())
    assert far > 1e-2

    wrong = jax.tree.map(lambda leaf: leaf * 1.01, folded)

    def run_wrong(images):
        return np.asarray(embed_batch(config, wrong, jnp.asarray(images), True))

    with pytest.raises(ExportError):
        compare(config, variables, run_wrong, engine="engine", flip=True)


def test_export_names_the_extra(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"rmgl_jax\[export\]"):
        export_onnx(model, tmp_path / "model.onnx")


def test_export_without_onnxruntime_is_checked_by_onnx(model, tmp_path, monkeypatch):
    """With balanced stripes too, whose operators it follows more strictly than other engines."""
    config = replace(model.config, model=TINY)
    balanced = replace(model, config=config, variables=random_variables(TINY))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    agreement = export_onnx(balanced, tmp_path / "model.onnx")
    assert "ONNX" in agreement.engine
    assert "Runtime" not in agreement.engine
    assert agreement.difference < 1e-4


def test_export_to_impossible_paths(model, tmp_path):
    with pytest.raises(InputError, match="directory"):
        export_onnx(model, tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match=r"model\.onnx"):
        export_onnx(model, tmp_path / "file" / "model.onnx")
