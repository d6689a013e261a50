"""Embeddings of files and images in memory equal those of the evaluation."""

import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.data.store import decode_split
from rmgl_jax.evaluation.embedding import embed, embed_batch
from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.gallery.embedder import Embedder
from tests.tiny_model import random_variables
from tests.tiny_trees import prepare_partial, write_images
from tests.trained_run import run_config

pytestmark = pytest.mark.network

CONFIG = run_config("market1501")
MODEL = TrainedModel(CONFIG, random_variables(CONFIG.model), step=1, digest="")


@pytest.fixture(scope="module")
def embedder():
    return Embedder(MODEL, batch_size=4)


def pixels(seed, height=40, width=30):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Nine files of all modes and several sizes, one of them upside down by its EXIF tag."""
    root = tmp_path_factory.mktemp("own")
    write_images(root / "query", ["0000_c2_0.png"])
    gallery = root / "gallery"
    gallery.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    modes = ("RGB", "L", "P", "RGBA", "RGB", "CMYK", "LA", "1", "RGB")
    for number, mode in enumerate(modes):
        image = Image.fromarray(pixels(number, 40 + number, 30)).convert(mode)
        name = f"{number:04}_c1_{number}.{'jpg' if mode == 'CMYK' else 'png'}"
        image.save(gallery / name, **({"exif": exif} if number == 4 else {}))
    return sorted(gallery.iterdir())


def test_embedder_equals_evaluation_bit_for_bit(paths, embedder, tmp_path):
    builder = prepare_partial("folder/own", paths[0].parents[1], tmp_path / "tfds")
    split = decode_split(builder, "gallery", CONFIG.model.image_size)
    assert [Path(name).name for name in split.names] == [path.name for path in paths]
    for flip in (True, False):
        expected = embed(CONFIG.model, MODEL.variables, split.images, batch_size=4, flip=flip)
        found = Embedder(MODEL, batch_size=4, flip=flip)([*map(str, paths[:5]), *paths[5:]])
        assert (found.shape, found.dtype) == ((9, expected.shape[1]), np.float32)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_embedder_takes_paths_images_and_arrays(paths, embedder):
    expected = embedder(paths)
    images = [Image.open(path) for path in paths]
    np.testing.assert_array_equal(embedder(images), expected)
    np.testing.assert_array_equal(embedder([*images[:4], *paths[4:]]), expected)
    np.testing.assert_array_equal(embedder(np.array(list(map(str, paths)))), expected)
    np.testing.assert_array_equal(embedder([images[4]] * 6), embedder([paths[4]] * 6))
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    upright = [*range(4), *range(5, 9)]
    np.testing.assert_array_equal(embedder(arrays)[upright], expected[upright])
    np.testing.assert_array_equal(embedder([arrays[4][::-1, ::-1]])[0], expected[4])


def test_embedder_takes_one_array_of_any_size(embedder):
    crops = np.stack([pixels(seed, 32, 16) for seed in range(5)])
    expected = embed(CONFIG.model, MODEL.variables, crops, batch_size=4)
    np.testing.assert_array_equal(embedder(crops), expected)
    large = np.stack([pixels(seed, 50, 20) for seed in range(5)])
    np.testing.assert_array_equal(embedder(large), embedder(list(large)))


def test_embedder_of_no_images(embedder):
    width = embedder([pixels(0)]).shape[1]
    assert embedder([]).shape == (0, width)
    assert embedder(np.zeros((0, 9, 9, 3), np.uint8)).shape == (0, width)


def test_embedder_streams_and_compiles_one_program(embedder):
    """Images that are made on demand are not kept longer than for two batches."""
    alive, most = weakref.WeakSet(), []

    class Crops(Sequence):
        def __len__(self):
            return 41

        def __getitem__(self, index):
            crop = pixels(index).view(Tracked)
            alive.add(crop)
            most.append(len(alive))
            return crop

    class Tracked(np.ndarray):
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    embed_batch.clear_cache()
    found = embedder(Crops())
    np.testing.assert_array_equal(found, embedder([pixels(index) for index in range(41)]))
    assert embed_batch._cache_size() == 1
    assert max(most) <= 2 * embedder.batch_size


def test_embedder_shows_progress_on_request(embedder, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    crops = [pixels(0)] * 9
    embedder(crops)
    assert capsys.readouterr().err == ""
    embedder(crops, progress=True)
    shown = capsys.readouterr().err
    assert "9/9" in shown
    assert "images/s" in shown


def test_embedder_names_files_that_cannot_be_read(paths, embedder, tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.png"):
        embedder([*paths, tmp_path / "none.png"])
    content = paths[0].read_bytes()
    for name, damaged in (("a.png", content[:200]), ("b.png", b"text"), ("c.png", b"")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            embedder([paths[0], str(tmp_path / name)])
    with pytest.raises(InputError, match=tmp_path.name):
        embedder([tmp_path])
    with Image.open(tmp_path / "a.png") as truncated, pytest.raises(InputError, match=r"images\[1"):
        embedder([paths[0], truncated])


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ("a.png", TypeError, "got str"),
        (Path("a.png"), TypeError, "Path"),
        (Image.new("RGB", (9, 9)), TypeError, "got Image"),
        ((path for path in ["a.png"]), TypeError, "got generator"),
        ([pixels(0), 5], TypeError, r"images\[1\] .* int"),
        ([pixels(0), pixels(0) / 255], TypeError, r"images\[1\] .* float64"),
        ([pixels(0)[..., :1]], ValueError, r"images\[0\] .* \(40, 30, 1\)"),
        ([pixels(0)[:0]], ValueError, r"images\[0\] .* \(0, 30, 3\)"),
        (pixels(0), ValueError, r"\(40, 30, 3\)"),
        (pixels(0)[None] / 255, TypeError, "float64"),
    ],
)
def test_embedder_rejects_other_input(images, error, message, embedder):
    with pytest.raises(error, match=message):
        embedder(images)


def test_embedder_rejects_batch_of_nothing():
    with pytest.raises(ValueError, match="0"):
        Embedder(MODEL, batch_size=0)
    with pytest.raises(InputError, match=r"batch_size.*2\.5"):
        Embedder(MODEL, batch_size=2.5)
