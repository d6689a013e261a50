"""Projections and thresholds of a trained model, measured on a dataset."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from data_prep.errors import InputError
from rmgl_jax.evaluation.calibration import Calibration
from rmgl_jax.evaluation.projection import fit_projection
from rmgl_jax.evaluation.ranking import rank_features
from rmgl_jax.experiment import calibrate_command, compress_command
from rmgl_jax.experiment.compress import CompressionRow, default_width, measure_widths
from rmgl_jax.export.model_file import TrainedModel, load_model, save_model
from rmgl_jax.gallery import compare_command
from tests.tiny_model import random_variables
from tests.tiny_trees import prepare_partial, write_images
from tests.trained_run import run_config


def row(dim, mean_ap, precision="float32"):
    return CompressionRow(dim, precision, 4, SimpleNamespace(mean_ap=mean_ap))


def test_default_width_is_the_smallest_within_half_a_point():
    rows = [row(None, 0.8), row(512, 0.81), row(256, 0.7951), row(128, 0.79), row(64, 0.1)]
    assert default_width([*rows, row(128, 0.8, "int8")]) == 256
    assert default_width([row(None, 0.8), row(128, 0.7)]) is None


def test_measure_widths_ranks_what_is_stored():
    random = np.random.default_rng(0)
    centers = random.normal(size=(20, 16))
    pids, camids = np.tile(np.arange(20), 3), np.repeat([0, 1, 2], 20)
    rows = (centers[pids] + random.normal(size=(60, 16))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    projection = fit_projection(rows, pids, 8)
    labels = (pids[:20], camids[:20], pids[20:], camids[20:])
    found = measure_widths(projection, rows[:20], rows[20:], labels, (4, 8))
    assert [(r.dim, r.precision, r.n_bytes) for r in found] == [
        *[(None, "float32", 64), (None, "float16", 32), (None, "int8", 16)],
        *[(8, "float32", 32), (8, "float16", 16), (8, "int8", 8)],
        *[(4, "float32", 16), (4, "float16", 8), (4, "int8", 4)],
    ]
    whole = rank_features(rows[:20], rows[20:], *labels).mean_ap
    assert found[0].metrics.mean_ap == pytest.approx(whole)
    short = projection(rows, 4)
    assert found[6].metrics.mean_ap == pytest.approx(
        rank_features(short[:20], short[20:], *labels).mean_ap
    )
    assert abs(found[2].metrics.mean_ap - whole) < 0.05


@pytest.mark.network
def test_commands_compress_and_calibrate_a_model(tmp_path, capsys, monkeypatch):
    """From a model file to a comparison at a false positive rate."""
    names = [f"{pid:04}_c{camera}_{pid}.png" for pid in range(1, 9) for camera in (1, 2, 3)]
    for split in ("train", "query", "gallery"):
        write_images(tmp_path / "own" / split, names[:: 3 if split == "query" else 1])
    prepare_partial("folder/own", tmp_path / "own", tmp_path / "tfds")
    config = run_config("folder/own")
    model = TrainedModel(config, random_variables(config.model), 9, "")
    plain, short, final = (tmp_path / f"{name}.safetensors" for name in ("plain", "short", "final"))
    save_model(model, plain)
    data = ["--data-dir", str(tmp_path / "tfds")]

    compress_command.main([str(plain), "--output", str(short), "--dims", "8", "4", *data])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("whole", "float16", "mAP lost"))
    projection = load_model(short).projection
    assert (projection.largest_dim, projection.fitted_on) == (8, "folder/own")

    # No width of a random network is recommended.
    recommended = replace(load_model(short), projection=replace(projection, default_dim=4))
    save_model(recommended, short)
    rates = ["--rates", "0.3", "1e-6"]
    calibrate_command.main([str(short), "--output", str(final), *rates, *data])
    printed = capsys.readouterr().out
    assert "8 persons" in printed
    assert "too few persons" in printed
    calibration = load_model(final).calibration
    assert (calibration.dim, calibration.flip, calibration.n_negative) == (4, True, 8 * 7 * 3)
    assert calibration.n_positive == 8 * 2
    assert calibration.unresolved == (1e-6,)

    image = str(tmp_path / "own" / "query" / names[0])
    compare_command.main([str(final), image, image, "--json"])
    (decision,) = json.loads(capsys.readouterr().out)["decisions"]
    assert decision["same_person"]
    assert decision["fpr"] == 0.3

    # Another projection has another scale, so that the thresholds go.
    compress_command.main([str(final), "--output", str(short), "--dims", "6", *data])
    assert "dropped" in capsys.readouterr().out
    assert load_model(short).calibration is None

    def no_images(*arguments, **keywords):
        pytest.fail("embeds images before it refuses the options")

    for module in ("compress", "calibrate"):
        monkeypatch.setattr(f"rmgl_jax.experiment.{module}.embed_split", no_images)
    (tmp_path / "directory.safetensors").mkdir()
    directory = str(tmp_path / "directory.safetensors")
    for command, arguments, named in (
        (compress_command, ["--output", "model.bin"], "model.bin"),
        (calibrate_command, ["--output", "model.bin"], "model.bin"),
        (compress_command, ["--output", directory], directory),
        (calibrate_command, ["--output", directory], directory),
        (compress_command, ["--output", str(plain / "x.safetensors")], str(plain)),
        (compress_command, ["--output", str(short), "--dims", "9999"], "9999"),
        (compress_command, ["--output", str(short), "--dims", "4", "--whitening", "7"], "7"),
        (calibrate_command, ["--output", str(short), "--rates", "0.5", "nan"], "nan"),
    ):
        with pytest.raises(SystemExit) as caught:
            command.main([str(plain), *arguments, *data])
        assert caught.value.code == 1
        assert named in capsys.readouterr().out.replace("\n", "")


@pytest.mark.network
def test_model_file_keeps_calibration_without_projection(tmp_path):
    config = run_config("market1501")
    calibration = Calibration("own", "0a", True, None, 5, 1, 2, (), (0.1,))
    model = TrainedModel(config, random_variables(config.model), 1, "", None, calibration)
    save_model(model, tmp_path / "a.safetensors")
    assert load_model(tmp_path / "a.safetensors").calibration == calibration
    with pytest.raises(InputError, match=r"0\.1 .* 5 persons"):
        replace(model).calibration.threshold(0.1)
