"""Addresses of buckets are refused by name wherever a path is taken, before anything is written."""

from pathlib import Path

import pytest

from data_prep.errors import InputError
from data_prep.files import check_local, write_text
from data_prep.preparing import prepare_dataset
from rmgl_jax.experiment.presets import tiny
from rmgl_jax.experiment.run import train
from rmgl_jax.export.model_file import load_model

BUCKET = "gs://bucket/run"
CONFIG = tiny("synthetic/tiny")


@pytest.mark.parametrize(
    "use",
    [
        lambda path, here: train(CONFIG, path),
        lambda path, here: train(CONFIG, here, data_dir=path),
        lambda path, here: train(CONFIG, here, source=path),
        lambda path, here: train(CONFIG, here, weights=path),
        lambda path, here: prepare_dataset("market1501", data_dir=path),
        lambda path, here: load_model(path),
        lambda path, here: write_text(Path(path), "text"),
    ],
    ids=["workdir", "data_dir", "source", "weights", "prepare", "model", "output"],
)
@pytest.mark.parametrize("kind", [str, Path])  # pathlib makes one slash of the two
def test_address_of_a_bucket_is_refused(use, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"gs:/.*bucket/run"):
        use(kind(BUCKET), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, "", "a:b/c", "/x", Path("~/x"), "a:/b", "1:2/x"])
def test_paths_of_file_systems_are_accepted(path):
    check_local("--workdir", path)
