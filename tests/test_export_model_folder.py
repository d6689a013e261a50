"""Model folders, and models of the Hugging Face hub."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from data_prep.errors import InputError, MissingFileError, MissingPackageError
from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.evaluation.result import EvaluationResult, measures
from rmgl_jax.export.hub import resolve
from rmgl_jax.export.model_card import model_card, read_result, save_model_folder
from rmgl_jax.export.model_file import TrainedModel, load_model, save_model
from tests.tiny_model import random_variables
from tests.trained_run import run_config, write_run
from tests.trees import assert_trees_close

CONFIG = run_config("market1501")
REPOSITORY = "someone/rmgl-market"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model():
    return TrainedModel(CONFIG, random_variables(CONFIG.model), step=12, digest="d" * 64)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "made" / "market"
    save_model_folder(model, directory)
    return directory


def evaluation(**changes):
    rng = np.random.default_rng(0)
    metrics = rank_metrics(
        rng.random((4, 9)),
        1 + np.arange(4) % 3,
        np.zeros(4, int),
        1 + np.arange(9) % 3,
        np.ones(9, int),
    )
    result = EvaluationResult("market1501", "1.0.0", 4, 9, 3, True, True, metrics)
    return replace(result, **changes)


def test_model_folder_is_loaded(folder, model):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.safetensors"]
    for path in (folder, str(folder)):
        loaded = load_model(path)
        assert_trees_close(loaded.variables, model.variables)
        assert (loaded.config, loaded.step) == (CONFIG, 12)
    with pytest.raises(InputError, match="best"):
        load_model(folder, best=True)


def test_run_directory_with_a_model_file_is_still_a_run(tmp_path, model):
    run = tmp_path / "run"
    write_run(run, "market1501", {3: None})
    save_model(model, run / "model.safetensors")
    assert load_model(run).step == 3
    assert load_model(run / "model.safetensors").step == 12
    with pytest.raises(InputError, match="run directory"):
        save_model_folder(model, run)


def test_model_folder_may_have_a_configuration_of_others(tmp_path, model):
    save_model(model, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert load_model(tmp_path).step == 12


def test_model_card_states_results_data_and_terms(model):
    result = evaluation(step="12")
    card = model_card(model, result)
    for value in measures(result.plain).values():
        assert f"{value:.2f}" in card
    for text in (model.digest, "market1501", "32x16", "may not be redistributed", "load_model"):
        assert text in card
    for heading in ("Results", "Training data", "Intended use", "Limits", "How to load it"):
        assert f"\n## {heading}\n" in card
    assert card.startswith("---\nlibrary_name: rmgl_jax\n")
    shown = json.loads(re.findall(r"```json\n(.*?)```", card, re.DOTALL)[0])
    assert shown["image_size"] == [32, 16]


@pytest.mark.parametrize("changes", [{"step": "11"}, {"digest": "e" * 64, "step": "12"}])
def test_model_card_leaves_out_results_of_other_weights(model, changes):
    result = evaluation(**changes)
    card = model_card(model, result)
    assert "other weights" in card
    assert f"{measures(result.plain)['mINP']:.2f}" not in card


@pytest.mark.parametrize("dataset", ["synthetic/tiny", "folder/shop", "dukemtmc_reid", "new"])
def test_model_card_of_other_datasets(model, dataset):
    other = replace(model, config=replace(CONFIG, dataset=dataset))
    card = model_card(other)
    assert f"# RMGL trained on {dataset}" in card
    assert "may not be redistributed" not in card


def test_result_of_a_run_is_read(tmp_path):
    assert read_result(tmp_path) is None
    assert read_result(tmp_path / "absent") is None
    (tmp_path / "result.json").write_text(evaluation().to_json())
    assert read_result(tmp_path).n_query == 4
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"result\.json is damaged"):
        read_result(tmp_path)


def test_resolve_returns_existing_paths(folder, tmp_path, monkeypatch):
    assert resolve(folder) == folder / "model.safetensors"
    assert resolve(tmp_path) == tmp_path
    monkeypatch.chdir(folder.parent.parent)
    assert resolve("made/market") == folder.relative_to(folder.parent.parent) / "model.safetensors"


@pytest.mark.parametrize("path", ["made/absent", "absent", "a/b/c", "absent/model.safetensors"])
def test_paths_that_cannot_be_repositories_are_local(path, folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    assert str(resolve(path)) == path
    with pytest.raises(MissingFileError, match=r"absent|a/b/c"):
        load_model(path)


def test_hub_without_its_package_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingPackageError, match=rf"{REPOSITORY}.*rmgl_jax\[hub\]"):
        load_model(REPOSITORY)


@pytest.fixture(scope="module")
def cache(folder, tmp_path_factory):
    """A cache as huggingface_hub lays it out, with one revision of one repository."""
    home = tmp_path_factory.mktemp("huggingface")
    repository = home / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    shutil.copy(folder / "model.safetensors", snapshot)
    (snapshot / "pytorch_model.bin").write_bytes(b"not to be read")
    for name in ("main", "v1"):
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / name).write_text(COMMIT)
    return home


def resolve_offline(name, home, directory):
    """Resolves a path in a process that has a cache and no network."""
    script = "import sys; from rmgl_jax.export.hub import resolve; print(resolve(sys.argv[1]))"
    environment = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(home / "hub")}
    return subprocess.run(
        [sys.executable, "-c", script, name],
        cwd=directory,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("revision", ["", "@v1", f"@{COMMIT}"])
def test_hub_repository_is_read_from_its_cache(revision, cache, model, tmp_path):
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    run = resolve_offline(REPOSITORY + revision, cache, tmp_path)
    assert run.stdout.strip().endswith(f"{COMMIT}/model.safetensors"), run.stderr
    assert_trees_close(load_model(run.stdout.strip()).variables, model.variables)


@pytest.mark.parametrize(
    "address", [f"https://huggingface.co/{REPOSITORY}/", f"https:/huggingface.co/{REPOSITORY}@v1"]
)
def test_hub_repository_is_read_by_its_address(address, cache, tmp_path):
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    # The directory of the organization does not matter: an address is no path.
    (tmp_path / REPOSITORY.split("/")[0]).mkdir()
    run = resolve_offline(address, cache, tmp_path)
    assert run.stdout.strip().endswith(f"{COMMIT}/model.safetensors"), run.stderr


@pytest.mark.parametrize("name", ["someone/absent", f"{REPOSITORY}@v2"])
def test_hub_repository_that_is_not_there_is_named(name, cache, tmp_path):
    pytest.importorskip("huggingface_hub", reason="the extra `hub` is not installed")
    run = resolve_offline(name, cache, tmp_path)
    assert run.returncode
    assert "MissingFileError" in run.stderr
    assert name.split("@")[0] in run.stderr.splitlines()[-1]
