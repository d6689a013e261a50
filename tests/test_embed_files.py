"""The commands that use images of one's own: embed and compare."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.evaluation.calibration import Calibration, OperatingPoint
from rmgl_jax.evaluation.projection import fit_projection
from rmgl_jax.export.model_file import TrainedModel, load_model, save_model
from rmgl_jax.gallery import compare_command, embed_command
from rmgl_jax.gallery.compare import compare, describe
from rmgl_jax.gallery.crops import Crop, read_crop
from rmgl_jax.gallery.embed_files import embed_files
from rmgl_jax.gallery.embedder import Embedder
from tests.tiny_model import random_variables
from tests.trained_run import run_config

pytestmark = pytest.mark.network

CONFIG = run_config("market1501")
WIDTH = 24


@pytest.fixture(scope="module")
def model():
    random = np.random.default_rng(0)
    projection = fit_projection(
        random.normal(size=(60, WIDTH)).astype(np.float32), np.arange(60) // 3, 12
    )
    return TrainedModel(CONFIG, random_variables(CONFIG.model), 1, "0a", projection)


@pytest.fixture(scope="module")
def model_path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    save_model(model, path)
    return path


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """Nine images, of which the fifth is broken in `bad`."""
    root = tmp_path_factory.mktemp("images") / "crops"
    root.mkdir()
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:04}_c2_{number}.png")
    return root


def embed_to(output, model_path, *images, **options):
    out = io.StringIO()
    sources = tuple(map(str, images))
    console = Console(file=out, width=400)
    model = load_model(model_path)
    skipped = embed_files(model, sources, output, batch_size=4, console=console, **options)
    return dict(np.load(output)), skipped, out.getvalue()


def test_embed_files_writes_what_the_embedder_gives(crops, model_path, model, tmp_path):
    found, skipped, printed = embed_to(tmp_path / "a.npz", model_path, crops)
    paths = sorted(crops.iterdir())
    np.testing.assert_array_equal(found["embedding"], Embedder(model, 4)(paths))
    assert list(found["path"]) == list(map(str, paths))
    assert (list(found["pid"]), set(found["camid"])) == (list(range(9)), {2})
    assert not skipped
    assert "9 embeddings" in printed


def test_embed_files_applies_projection_and_precision(crops, model_path, model, tmp_path):
    options = {"dim": 5, "precision": "float16", "flip": False}
    found, *_ = embed_to(tmp_path / "a.npz", model_path, crops, **options)
    whole = Embedder(model, 4, flip=False)(sorted(crops.iterdir()))
    expected = model.projection(whole, 5)
    assert found["embedding"].dtype == np.float16
    np.testing.assert_allclose(found["embedding"], expected, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-6)


def test_embed_files_reads_boxes_of_frames(crops, model_path, model, tmp_path):
    frame = tmp_path / "frame.png"
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(frame)
    boxes = [(0, 0, 30, 60), (50, 10, 80, 85), (90, -5, 130, 70)]
    lines = [f"frame.png,{','.join(map(str, box))}" for box in boxes]
    (tmp_path / "boxes.csv").write_text("\n".join(["path,left,top,right,bottom", *lines]))
    found, *_ = embed_to(tmp_path / "a.npz", model_path, tmp_path / "boxes.csv")
    cut = [pixels[:60, :30], pixels[10:85, 50:80], pixels[:70, 90:]]
    np.testing.assert_array_equal(found["embedding"], Embedder(model, 4)(cut))
    assert found["box"].tolist() == [list(box) for box in boxes]


def test_embed_files_stops_at_or_lists_bad_images(crops, model_path, model, tmp_path):
    good = sorted(crops.iterdir())
    bad = tmp_path / "bad"
    bad.mkdir()
    for number in range(5):
        (bad / f"{number}.png").write_bytes(good[0].read_bytes()[: 100 + number])
    output = tmp_path / "a.npz"
    with pytest.raises(InputError, match=r"0\.png"):
        embed_to(output, model_path, crops, bad)
    with pytest.raises(InputError, match=r"0\.png"):
        embed_to(output, model_path, bad, skip_bad=True)
    assert not output.exists()
    (bad / "\x1b[2J.png").write_bytes(b"bad")
    (tmp_path / "crops.csv").write_text("path\nnone.png\n")
    sources = [good[0], bad, *good[1:], tmp_path / "crops.csv"]
    found, skipped, printed = embed_to(output, model_path, *sources, skip_bad=True)
    np.testing.assert_array_equal(found["embedding"], Embedder(model, 4)(good))
    assert list(found["path"]) == list(map(str, good))
    left_out = [*sorted(bad.iterdir()), tmp_path / "none.png"]
    assert [image.image for image in skipped] == list(map(Crop, left_out))
    assert all(
        str(path).replace("\x1b", "\N{REPLACEMENT CHARACTER}") in printed for path in left_out
    )
    assert "\x1b" not in printed


def test_embed_command_reports_what_a_user_can_mend(crops, model_path, tmp_path, capsys):
    output = ["--output", str(tmp_path / "a.npz")]
    below_a_file = str(model_path / "a.npz")
    embed_command.main([str(model_path), str(crops), *output, "--batch-size", "4"])
    assert "9 embeddings" in capsys.readouterr().out
    for arguments, message in (
        ([str(model_path), str(tmp_path / "none.png"), *output], "none.png"),
        ([str(model_path), str(crops), "--output", "a.csv"], "a.csv"),
        ([str(model_path), str(crops), *output, "--dim", "99"], "99"),
        ([str(model_path), *output], "images"),
        ([str(model_path), str(crops), "--output", below_a_file], model_path.name),
    ):
        with pytest.raises(SystemExit) as caught:
            embed_command.main(arguments)
        assert caught.value.code == 1
        assert message in capsys.readouterr().out.replace("\n", "")


def test_embedder_rejects_widths_that_the_model_has_not(model):
    with pytest.raises(InputError, match="12 dimensions, not 13"):
        Embedder(model, dim=13)
    with pytest.raises(InputError, match="5 dimensions"):
        Embedder(replace(model, projection=None), dim=5)


def test_embedder_digest_depends_on_weights_and_projection(model):
    assert Embedder(model).digest == Embedder(replace(model, projection=None)).digest == "0a"
    other = replace(model, digest="0b")
    twice = replace(model.projection, mean=2 * model.projection.mean)
    digests = {
        Embedder(model).digest,
        Embedder(model, dim=5).digest,
        Embedder(other, dim=5).digest,
        Embedder(replace(model, projection=twice), dim=5).digest,
    }
    assert len(digests) == 4
    assert Embedder(model, dim=6).digest in digests


def calibrated(model, flip=True, dim=5, digest=None):
    digest = digest or Embedder(model, dim=dim).digest
    points = tuple(
        OperatingPoint(rate, threshold, (threshold - 0.1, threshold + 0.1), 0.5, (0.4, 0.6))
        for rate, threshold in ((1e-2, -1.0), (1e-3, 0.9999))
    )
    calibration = Calibration("market1501", digest, flip, dim, 750, 20, 3000, points)
    return replace(model, calibration=calibration)


def test_model_file_keeps_projection_and_calibration(model, tmp_path):
    expected = calibrated(model)
    save_model(expected, tmp_path / "a.safetensors")
    found = load_model(tmp_path / "a.safetensors")
    assert found.calibration == expected.calibration
    np.testing.assert_array_equal(found.projection.components, model.projection.components)
    np.testing.assert_array_equal(found.projection.mean, model.projection.mean)
    save_model(replace(model, projection=None), tmp_path / "b.safetensors")
    found = load_model(tmp_path / "b.safetensors")
    assert (found.projection, found.calibration) == (None, None)
    assert found.digest == load_model(tmp_path / "a.safetensors").digest


def test_model_file_of_damaged_projection_is_rejected(model_path, tmp_path):
    content = bytearray(model_path.read_bytes())
    values = load_model(model_path).projection.components.tobytes()
    start = content.index(values)
    content[start + 5] ^= 1
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.safetensors is damaged: the projection"):
        load_model(tmp_path / "a.safetensors")


def test_compare_decides_at_each_calibrated_rate(model, crops):
    first, second = sorted(crops.iterdir())[:2]
    result = compare(calibrated(model), first, second)
    embeddings = Embedder(model, 4, dim=5)([first, second])
    assert result.score == pytest.approx(float(embeddings[0] @ embeddings[1]), abs=1e-5)
    assert [(d.fpr, d.same_person) for d in result.decisions] == [(1e-2, True), (1e-3, False)]
    assert (result.calibrated_on, result.notes) == ("market1501", ())
    same = compare(calibrated(model), first, first)
    assert same.decisions[1].same_person
    assert 1 - 1e-5 < same.score <= 1
    text = describe(result)
    assert "0.001: no" in text[2]
    assert "0.01: yes" in text[1]


def test_compare_uses_the_embedding_of_the_calibration(model, crops):
    first, second = sorted(crops.iterdir())[:2]
    whole = compare(calibrated(model, flip=False, dim=None, digest="0a"), first, second)
    embeddings = Embedder(model, 4, flip=False)([first, second])
    assert whole.score == pytest.approx(float(embeddings[0] @ embeddings[1]), abs=1e-5)
    assert len(whole.decisions) == 2
    other = compare(calibrated(model, digest="other"), first, second)
    assert (other.decisions, other.calibrated_on, len(other.notes)) == ((), None, 1)


def test_compare_command_prints_json(model_path, crops, tmp_path, capsys):
    wide = tmp_path / "wide.png"
    Image.fromarray(np.zeros((20, 50, 3), np.uint8)).save(wide)
    first = min(crops.iterdir())
    compare_command.main([str(model_path), str(first), str(wide), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["decisions"], found["calibrated_on"]) == ([], None)
    assert -1 <= found["score"] <= 1
    shape, uncalibrated = found["notes"]
    assert "50 x 20" in shape
    assert "rmgl calibrate" in uncalibrated
    compare_command.main([str(model_path), str(first), str(first)])
    assert "score 1.0000" in capsys.readouterr().out


def test_compare_names_images_that_cannot_be_read(model, crops, tmp_path):
    with pytest.raises(MissingFileError, match="none"):
        compare(model, min(crops.iterdir()), tmp_path / "none.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(InputError, match=r"text\.png"):
        compare(model, Path(tmp_path / "text.png"), min(crops.iterdir()))
    assert read_crop(Crop(min(crops.iterdir()))).size == (20, 40)
