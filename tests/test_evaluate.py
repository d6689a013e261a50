"""Evaluation of a trained model on any dataset."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.config import EvalConfig
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.experiment.evaluate import evaluate, evaluate_run
from rmgl_jax.experiment.options import DataOptions, EvaluateOptions
from rmgl_jax.export.model_file import TrainedModel, load_model, save_model
from tests.tiny_model import random_variables
from tests.tiny_trees import prepare_partial, write_images
from tests.trained_run import run_config, write_run

pytestmark = pytest.mark.network

QUERIES = [f"{pid:04}_c1_{pid}.png" for pid in range(1, 7)]
GALLERY = [f"{pid:04}_c{camera}_{pid}.png" for pid in range(8) for camera in (1, 2, 3)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """`folder/own` with 6 queries and 24 gallery images."""
    root = tmp_path_factory.mktemp("data")
    for split, names in (("query", QUERIES), ("gallery", GALLERY)):
        write_images(root / "own" / split, names)
    prepare_partial("folder/own", root / "own", root / "tfds")
    return root / "tfds"


@pytest.fixture(scope="module")
def model():
    config = run_config("market1501")
    return TrainedModel(config, random_variables(config.model), step=9, digest="0a")


@pytest.fixture(scope="module")
def plain(model, data_dir):
    return evaluate(model, "folder/own", data_dir=data_dir)


def test_evaluate_describes_its_result(plain):
    assert (plain.dataset, plain.n_query, plain.n_gallery, plain.n_ids) == ("folder/own", 6, 24, 6)
    assert (plain.trained_on, plain.step, plain.digest) == ("market1501", "9", "0a")
    assert (plain.flipped, plain.same_camera_rule, plain.checkpoint) == (True, True, None)
    assert (plain.reranked, plain.expanded, plain.verification) == (None, None, None)
    assert plain.parts is None


def test_evaluate_passes_its_options_on(model, data_dir, plain):
    settings = EvalConfig(flip=False, rerank=True, k1=4, k2=2, lambda_value=0.2, batch_size=8)
    result = evaluate(
        model,
        "folder/own",
        data_dir=data_dir,
        settings=settings,
        query_expansion=True,
        roc=True,
        checkpoint="here",
    )
    r = result.reranked
    assert (r.k1, r.k2, r.lambda_value) == (4, 2, 0.2)
    assert (result.flipped, result.checkpoint) == (False, "here")
    assert result.expanded is not None
    assert result.verification is not None
    assert (result.plain.ap != plain.plain.ap).any()


def test_evaluate_prepares_data_from_the_source(model, tmp_path):
    write_images(tmp_path / "new" / "query", QUERIES[:2])
    write_images(tmp_path / "new" / "gallery", GALLERY[:9])
    result = evaluate(
        model, "folder/new", source=tmp_path / "new", data_dir=tmp_path / "tfds", roc=True
    )
    assert (result.n_query, result.n_gallery) == (2, 9)
    assert result.expanded is None
    assert result.verification is not None
    again = evaluate(model, "folder/new", data_dir=tmp_path / "tfds", roc=True)
    assert again.to_json() == result.to_json()


def test_evaluate_without_its_data(model, data_dir, tmp_path):
    with pytest.raises(MissingFileError, match="msmt17"):
        evaluate(model, "msmt17/train", data_dir=data_dir)
    with pytest.raises(InputError, match="'mars'"):
        evaluate(model, "mars", data_dir=data_dir)
    source = tmp_path / "train_only"
    write_images(source / "train", QUERIES)
    with pytest.raises(InputError, match="no images of query and gallery"):
        evaluate(model, "folder/train_only", source=source, data_dir=data_dir)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_evaluate_run_prints_and_writes_the_result(kind, model, data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    if kind == "directory":
        checkpoint, step = tmp_path / "run", 3
        write_run(checkpoint, "market1501", {3: 0.5, 6: 0.4})
    else:
        checkpoint, step = tmp_path / "model.safetensors", None
        save_model(model, checkpoint)
    output = tmp_path / "made" / "result.json"
    options = EvaluateOptions(
        checkpoint=checkpoint,
        step=step,
        dataset="folder/own",
        data=DataOptions(data_dir=data_dir),
        settings=EvalConfig(rerank=True, k1=4, k2=2, lambda_value=0.2),
        query_expansion=True,
        roc=True,
        by_part=True,
        output=Path("~/made/result.json"),
    )
    console = Console(width=100, file=io.StringIO())
    result = evaluate_run(options, console)
    expected = evaluate(load_model(checkpoint, step), "folder/own", data_dir=data_dir)
    np.testing.assert_array_equal(result.plain.ap, expected.plain.ap)
    assert (result.step, result.digest) == (expected.step, expected.digest)

    text = " ".join(console.file.getvalue().split())
    for part in (
        "folder/own 1.0.0: 6 queries of 6 identities, 24 gallery images",
        "k1 4, k2 2, lambda 0.2",
        "query expansion: k 5, alpha 3",
        "at 0.0001",
        f"step {step or 9}, trained on market1501",
        "flipped, not re-ranked",
        "flipped, re-ranked",
        "flipped, queries expanded",
        str(output),
    ):
        assert part in text, part
    for part in result.parts:
        assert f"{part.name} {part.width} {100 * part.rank_1:.2f} {100 * part.mean_ap:.2f}" in text
    assert output.read_text() == result.to_json()
    assert EvaluationResult.from_json(output.read_text()).to_json() == output.read_text()
    assert json.loads(output.read_text())["checkpoint"] == str(checkpoint)
    assert [path.name for path in output.parent.iterdir()] == ["result.json"]


def test_evaluate_run_refuses_an_output_that_is_no_json_file(model, data_dir, tmp_path):
    """Such as the model itself."""
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    before = path.read_bytes()
    options = EvaluateOptions(
        checkpoint=path, dataset="folder/own", data=DataOptions(data_dir=data_dir), output=path
    )
    with pytest.raises(InputError, match=r"--output must end in \.json, got .*safetensors"):
        evaluate_run(options, Console(file=io.StringIO()))
    assert path.read_bytes() == before
