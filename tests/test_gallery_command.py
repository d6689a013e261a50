"""The command line of galleries: add, search, list and remove, as text and as JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from rmgl_jax.evaluation.calibration import Calibration, OperatingPoint
from rmgl_jax.export.model_file import save_model
from rmgl_jax.gallery.command import COMMANDS, main
from rmgl_jax.gallery.gallery import Gallery
from tests.tiny_gallery import MODEL, make_model, write_crops

pytest.importorskip("pymilvus", reason="the extra gallery is not installed")
pytest.importorskip("milvus_lite", reason="the extra gallery is not installed")
pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Directory of 6 images, whose names give the cameras 1 and 2."""
    directory = tmp_path_factory.mktemp("images")
    for number, crop in enumerate(write_crops(directory)):
        if number < 6:
            crop.path.rename(directory / f"{number:04}_c{number % 2 + 1}s1_{number:06}_00.png")
        else:
            crop.path.unlink()
    return directory


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(MODEL, path)
    return path


@pytest.fixture(scope="module")
def gallery(tmp_path_factory, images):
    """Directory of a gallery with the images, which tests do not change."""
    directory = tmp_path_factory.mktemp("filled") / "gallery"
    with Gallery.open(directory, MODEL, create=True):
        pass
    main(["add", str(directory), str(images), "--label", "red"])
    return directory


@pytest.fixture
def run(capsys):
    """Runs a command; returns its standard output, as text or as the value of its JSON."""

    def run_command(*arguments, status=None):
        capsys.readouterr()
        if status is not None:
            with pytest.raises(SystemExit) as ended:
                main([str(argument) for argument in arguments])
            assert ended.value.code == status
        else:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return json.loads(output.out) if "--json" in arguments and not status else output

    return run_command


def test_add_makes_a_gallery_and_repeats_without_change(run, tmp_path, images, model_file):
    place = tmp_path / "g"
    assert "model" in run("add", place, images, status=1).out
    outcome = run("add", place, images, "--model", model_file, "--no-flip", "--json")
    assert outcome["added"] == outcome["images"] == 6
    again = run("add", "--gallery", place, images, "--json")
    assert (again["added"], again["present"], again["images"]) == (0, 6, 6)
    with Gallery.open(place) as gallery:
        assert not gallery.settings.flip
        assert gallery.cameras() == ["1", "2"]


def test_add_lists_bad_and_wide_images(run, tmp_path, images, model_file):
    for name, size in (("wide.png", (40, 20)), ("high.png", (20, 40))):
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"bad")
    (tmp_path / "crops.csv").write_text("path\nnone.png\n")
    sources = (tmp_path / "*.png", tmp_path / "crops.csv")
    arguments = ("add", tmp_path / "g", *sources, "--model", model_file)
    printed = run(*arguments, status=1).out.replace("\n", "")  # wrapped anywhere
    assert "crops.csv, line 2:" in printed
    without = ("add", tmp_path / "g", tmp_path / "*.png", "--model", model_file)
    assert "bad.png" in run(*without, status=1).out.replace("\n", "")
    outcome = run(*arguments, "--skip-bad", "--camera", "door", "--json")
    assert outcome["images"] == 2
    assert outcome["wide"] == [str(tmp_path / "wide.png")]
    assert {skipped["path"] for skipped in outcome["skipped"]} == {
        str(tmp_path / name) for name in ("bad.png", "none.png")
    }
    listed = run("list", tmp_path / "g", "--camera", "door", "--json")
    assert [entry["path"] for entry in listed] == [
        str(tmp_path / name) for name in ("high.png", "wide.png")
    ]


def test_search_prints_the_best_first(run, gallery, images):
    query = sorted(images.iterdir())[2]
    found = run("search", gallery, query, "--top", "4", "--json")
    assert found[0]["path"] == str(query)
    assert found[0]["score"] == pytest.approx(1, abs=1e-5)
    assert len(found) == 4
    assert [match["score"] for match in found] == sorted(
        (match["score"] for match in found), reverse=True
    )
    assert {"id", "camera", "time", "labels", "box"} <= found[0].keys()
    by_id = run("search", gallery, found[0]["id"], "--top", "4", "--json")
    assert [match["id"] for match in by_id] == [match["id"] for match in found]
    others = run("search", gallery, query, "--not-camera", "1", "--label", "red", "--json")
    assert {match["camera"] for match in others} == {"2"}
    assert run("search", gallery, query, "--after", "2020-01-01", "--json") == []
    assert found[0]["id"][:4] in run("search", gallery, query).out


def test_search_says_same_person_with_a_calibrated_model(run, gallery, images, tmp_path):
    query = sorted(images.iterdir())[0]
    plain = run("search", gallery, query, "--json")
    assert {match["same_person"] for match in plain} == {None}
    assert "calibrate" in run("search", gallery, query, "--fpr", "1e-3", status=1).out
    scores = [match["score"] for match in plain]
    threshold = float(np.mean(scores[1:3]))
    point = OperatingPoint(
        fpr=1e-3,
        threshold=threshold,
        threshold_interval=(threshold, threshold),
        tpr=0.5,
        tpr_interval=(0.4, 0.6),
    )
    calibration = Calibration("tiny", MODEL.digest, True, None, 3, 3, 3, (point,))
    save_model(replace(MODEL, calibration=calibration), tmp_path / "calibrated.safetensors")
    found = run("search", gallery, query, "--model", tmp_path / "calibrated.safetensors", "--json")
    assert [match["same_person"] for match in found] == [score > threshold for score in scores]
    assert [match["same_person"] for match in found][:3] == [True, True, False]


def test_list_shows_names_as_they_are(run, tmp_path, images, model_file):
    name = "[bold]a\x1b[31m.png"
    (tmp_path / name).write_bytes(sorted(images.iterdir())[0].read_bytes())
    run("add", tmp_path / "g", tmp_path / "*.png", "--model", model_file)
    shown = run("list", tmp_path / "g").out
    assert "[bold]a" in "".join(shown.split()).replace("│", "")
    assert "\x1b" not in shown
    assert run("list", tmp_path / "g", "--json")[0]["path"] == str(tmp_path / name)


def test_remove_takes_ids_and_paths(run, tmp_path, images, model_file):
    place, paths = tmp_path / "g", sorted(images.iterdir())
    run("add", place, images, "--model", model_file)
    entries = run("list", place, "--json")
    assert "none.png" in run("remove", place, paths[0], "none.png", status=1).out
    assert len(run("list", place, "--json")) == 6
    outcome = run("remove", place, paths[0], entries[3]["id"], "--json")
    assert outcome == {"removed": 2, "images": 4}
    left = [entry["path"] for entry in run("list", place, "--json")]
    assert left == [str(paths[i]) for i in (1, 2, 4, 5)]


def test_errors_of_json_are_on_standard_error(run, tmp_path, gallery):
    save_model(make_model(1), tmp_path / "other.safetensors")
    for arguments, text in (
        (("search", gallery, "none.png"), "none.png"),
        (("list", tmp_path / "none"), "none"),
        (("remove", gallery, "0" * 32), "0" * 32),
        (("list", gallery, "--before", "noon"), "noon"),
        (("list", gallery, "--after", ""), "--after"),
        (("remove", gallery), "Name the images to remove"),
        (("search", gallery, "0" * 32, "--model", tmp_path / "other.safetensors"), "model"),
        (("add", gallery, tmp_path / "none"), "none"),
    ):
        output = run(*arguments, "--json", status=1)
        assert output.out == ""
        assert text in output.err


def test_usage_lists_the_commands(run):
    shown = run("--help", status=0).out
    assert {*COMMANDS, "serve"} <= set(shown.split())
    assert "destroy" in run("destroy", status=2).err
