"""A gallery keeps what was added, finds what is similar, and refuses what does not belong."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import (
    ExpectedError,
    InputError,
    MissingFileError,
    MissingPackageError,
    WriteError,
)
from rmgl_jax.evaluation.calibration import Calibration, OperatingPoint
from rmgl_jax.evaluation.projection import fit_projection
from rmgl_jax.evaluation.query_expansion import expand_queries
from rmgl_jax.evaluation.reranking import rerank
from rmgl_jax.gallery.collection import Collection
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.embedder import Embedder
from rmgl_jax.gallery.entries import Filters
from rmgl_jax.gallery.gallery import Gallery
from tests.full_disk import full_disk
from tests.tiny_gallery import MODEL, make_model, write_crops

pytest.importorskip("pymilvus", reason="the extra gallery is not installed")
pytest.importorskip("milvus_lite", reason="the extra gallery is not installed")
pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    return write_crops(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory, crops):
    """A gallery with all crops; tests do not change it."""
    directory = tmp_path_factory.mktemp("filled") / "gallery"
    with Gallery.open(directory, MODEL, create=True, batch_size=8) as gallery:
        result = gallery.add(crops)
        assert (result.added, result.present, result.skipped) == (30, 0, ())
        yield gallery


@pytest.fixture(scope="module")
def embeddings(crops):
    return Embedder(MODEL, 8)(crops)


def test_search_orders_all_images_by_cosine(filled, crops, embeddings):
    for query in (0, 17):
        cosines = embeddings @ embeddings[query]
        matches = filled.search(crops[query].path, top=30)
        order = [str(crops[i].path) for i in np.argsort(-cosines)]
        assert [match.entry.path for match in matches] == order
        scores = [match.score for match in matches]
        np.testing.assert_allclose(scores, -np.sort(-cosines), atol=1e-5)
        assert [m.entry.path for m in filled.search(crops[query].path, top=4)] == order[:4]


def test_search_by_embedding_and_by_id_find_the_same(filled, crops, embeddings):
    by_image = filled.search(crops[3])
    by_embedding = filled.search(7 * embeddings[3].astype(np.float64))
    by_id = filled.search(by_image[0].entry.id)
    assert by_image[0].entry.path == str(crops[3].path)
    expected = [match.entry for match in by_image]
    assert [match.entry for match in by_embedding] == expected
    assert [match.entry for match in by_id] == expected
    stored = filled.embedding(by_image[0].entry.id)
    np.testing.assert_allclose(stored, embeddings[3], atol=1e-6)


def test_entries_have_the_metadata_of_their_crops(filled, crops):
    found = {entry.path: entry for entry in filled.scan()}
    assert len(found) == len(filled) == 30
    for crop in crops:
        entry = found[str(crop.path)]
        assert (entry.box, entry.camera, entry.time, entry.labels) == (
            crop.box,
            crop.camera,
            crop.time,
            crop.labels,
        )
        assert filled.entry(entry.id) == entry
        assert filled.ids_of(crop.path) == [entry.id]
    assert filled.ids_of(os.fsdecode(b"bad\xff.png")) == []
    assert filled.cameras() == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        (Filters(cameras=("0", "2")), lambda i: i % 3 != 1),
        (Filters(not_cameras=("0", "5")), lambda i: i % 3 != 0),
        (Filters(after=7.0), lambda i: i % 2 and i >= 7),
        (Filters(before=7.0), lambda i: i % 2 and i < 7),
        (Filters(after=-1e20, before=1e20), lambda i: i % 2),
        (Filters(labels=("third",), cameras=("0",), after=2.5), lambda i: i % 6 == 3),
        (Filters(labels=("third", "other")), lambda i: False),
        (Filters(cameras=('0" or camera != "',)), lambda i: False),
    ],
)
def test_filters_keep_what_meets_all_conditions(filled, crops, filters, kept):
    expected = {str(crop.path) for i, crop in enumerate(crops) if kept(i)}
    assert {match.entry.path for match in filled.search(crops[0], 30, filters)} == expected
    assert {entry.path for entry in filled.entries(filters)} == expected


def test_entries_in_pages_are_all_entries_once(filled):
    pages = [filled.entries(offset=offset, limit=7) for offset in range(0, 35, 7)]
    assert [len(page) for page in pages] == [7, 7, 7, 7, 2]
    assert [entry for page in pages for entry in page] == list(filled.scan())


def test_search_reorders_by_reranking_and_query_expansion(filled, crops, embeddings):
    query = embeddings[:1]
    cosines = embeddings @ query[0]
    nearest = np.argsort(-cosines)
    expanded = expand_queries(query, embeddings[nearest])
    orders = {
        (True, False): rerank(query, embeddings[nearest])[0],
        (False, True): -(expanded @ embeddings[nearest].T)[0],
        (True, True): rerank(expanded, embeddings[nearest])[0],
    }
    for (reranked, expand), distances in orders.items():
        matches = filled.search(crops[0], 5, rerank=reranked, expand=expand)
        order = nearest[np.argsort(distances, kind="stable")][:5]
        assert [match.entry.path for match in matches] == [str(crops[i].path) for i in order]
        np.testing.assert_allclose([match.score for match in matches], cosines[order], atol=1e-5)


def test_nearest_gives_the_ids_and_scores_of_searches(filled, crops, embeddings):
    queries = embeddings[:3]
    found = filled.nearest(queries, 7, Filters(cameras=("0", "2")))
    for query, hits in zip(queries, found, strict=True):
        matches = filled.search(query, 7, Filters(cameras=("0", "2")))
        assert [id for id, _ in hits] == [match.entry.id for match in matches]
        np.testing.assert_allclose(
            [score for _, score in hits], [match.score for match in matches], atol=1e-6
        )
    with pytest.raises(InputError, match="0"):
        filled.nearest(queries, 0)
    with pytest.raises(InputError, match="7"):
        filled.nearest(np.ones((2, 7), np.float32), 5)
    with pytest.raises(InputError, match="NaN"):
        filled.nearest(queries * np.nan, 5)


def test_add_again_changes_nothing(tmp_path, crops):
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        copy = tmp_path / "copy.png"
        copy.write_bytes(crops[0].path.read_bytes())
        box = replace(crops[0], box=(1, 2, 20, 30))
        result = gallery.add([*crops[:5], Crop(copy), crops[1], box, box])
        assert (result.added, result.present) == (6, 3)
        before = list(gallery.scan())
    with Gallery.open(tmp_path / "g") as gallery:
        result = gallery.add([Crop(copy, camera="9"), *crops[:7]])
        assert (result.added, result.present) == (2, 6)
        assert len(gallery) == 8
        assert {entry.id: entry for entry in before}.items() <= {
            entry.id: entry for entry in gallery.scan()
        }.items()
        assert sorted(e.box is None for e in map(gallery.entry, gallery.ids_of(copy))) == []
        assert len(gallery.ids_of(crops[0].path)) == 2


def test_add_takes_paths(tmp_path, crops):
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        assert gallery.add([crops[0].path, str(crops[1].path)]).added == 2
        assert [len(gallery.ids_of(crop.path)) for crop in crops[:2]] == [1, 1]


def test_add_shows_progress_on_request(tmp_path, crops, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Gallery.open(tmp_path / "g", MODEL, create=True, batch_size=8) as gallery:
        gallery.add(crops[:2])
        assert capsys.readouterr().err == ""
        gallery.add(crops, progress=True)
        shown = capsys.readouterr().err
    assert "30/30" in shown
    assert "images/s" in shown


def test_remove_takes_all_or_nothing(tmp_path, crops):
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        gallery.add(crops[:4])
        ids = [gallery.ids_of(crop.path)[0] for crop in crops[:4]]
        with pytest.raises(InputError, match="0" * 32):
            gallery.remove([ids[0], "0" * 32])
        assert len(gallery) == 4
        assert gallery.remove([ids[0], ids[0], ids[2]]) == 2
        assert {entry.id for entry in gallery.scan()} == {ids[1], ids[3]}
        assert {match.entry.id for match in gallery.search(crops[0])} == {ids[1], ids[3]}
        # What was removed can come back.
        assert gallery.add(crops[:1]).added == 1


def test_bad_images_stop_or_are_listed(tmp_path, crops):
    bad, bad_copy = tmp_path / "bad.png", tmp_path / "bad_copy.png"
    for path in (bad, bad_copy):
        path.write_bytes(crops[0].path.read_bytes()[:300])
    missing = Crop(tmp_path / "missing.png")
    odd = Crop(tmp_path / os.fsdecode(b"\xff.png"))
    many = [*crops[:3], Crop(bad), missing, odd, Crop(bad_copy), *crops[3:6]]
    with Gallery.open(tmp_path / "g", MODEL, create=True, batch_size=4) as gallery:
        with pytest.raises(InputError, match=r"bad\.png"):
            gallery.add([crops[0], Crop(bad)])
        with pytest.raises(MissingFileError, match=r"missing\.png"):
            gallery.add([crops[0], missing])
        with pytest.raises(InputError, match="udcff"):
            gallery.add([odd])
        result = gallery.add(many, skip_bad=True)
        assert (result.added + result.present, len(gallery)) == (6, 6)
        assert {path for path, _ in result.skipped} == {
            str(crop.path) for crop in (Crop(bad), missing, odd, Crop(bad_copy))
        }


def test_open_refuses_another_model_and_other_options(tmp_path, crops):
    with Gallery.open(tmp_path / "g", MODEL, create=True, flip=False) as gallery:
        gallery.add(crops[:1])
        with pytest.raises(InputError, match="7"):
            gallery.search(np.ones(7))
        with pytest.raises(InputError, match="0"):
            gallery.search(np.zeros(gallery.settings.width))
        with pytest.raises(InputError, match="f" * 32):
            gallery.search("f" * 32)
        with pytest.raises(InputError, match="16,385"):
            gallery.search(crops[0], top=16_385)
    other = make_model(seed=1)
    with pytest.raises(InputError, match=f"{MODEL.digest[:12]}.*{other.digest[:12]}"):
        Gallery.open(tmp_path / "g", other)
    with pytest.raises(InputError, match="flip False, not True"):
        Gallery.open(tmp_path / "g", flip=True)
    with pytest.raises(InputError, match="index exact, not hnsw"):
        Gallery.open(tmp_path / "g", MODEL, index="hnsw")
    with pytest.raises(InputError, match="annoy"):
        Gallery.open(tmp_path / "new", MODEL, create=True, index="annoy")
    # What failed is closed again.
    with Gallery.open(tmp_path / "g", MODEL, flip=False) as gallery:
        assert gallery.search(crops[0])[0].score == pytest.approx(1, abs=1e-5)


def test_gallery_keeps_the_calibration_of_a_model_that_adds(tmp_path):
    point = OperatingPoint(1e-3, 0.5, (0.4, 0.6), 0.5, (0.4, 0.6))
    calibration = Calibration("tiny", MODEL.digest, True, None, 3, 3, 3, (point,))
    calibrated = replace(MODEL, calibration=calibration)
    unlike = replace(MODEL, calibration=replace(calibration, flip=False))
    Gallery.open(tmp_path / "g", MODEL, create=True).close()
    for model, create, kept in (
        (calibrated, False, None),
        (unlike, True, None),
        (calibrated, True, calibration),
        (MODEL, True, calibration),
    ):
        Gallery.open(tmp_path / "g", model, create=create).close()
        with Gallery.open(tmp_path / "g") as gallery:
            assert gallery.model.calibration == kept


def test_open_refuses_what_is_not_a_gallery(tmp_path, crops):
    with pytest.raises(MissingFileError, match="none"):
        Gallery.open(tmp_path / "none")
    with pytest.raises(InputError, match="images"):
        Gallery.open(crops[0].path.parent, MODEL, create=True)
    with pytest.raises(InputError, match=r"00\.png"):
        Gallery.open(crops[0].path, MODEL, create=True)
    with pytest.raises(InputError, match="model"):
        Gallery.open(tmp_path / "new", create=True)
    Gallery.open(tmp_path / "g", MODEL, create=True).close()
    file = tmp_path / "g" / "gallery.json"
    content = json.loads(file.read_text())
    for damaged in (
        file.read_text()[:50],
        "[]",
        json.dumps({**content, "width": "8"}),
        json.dumps({**content, "index": "other"}),
        json.dumps({**content, "format_version": 99}),
        json.dumps({**content, "extra": 1}),
    ):
        file.write_text(damaged)
        with pytest.raises(InputError, match=r"gallery\.json"):
            Gallery.open(tmp_path / "g")
    file.write_text(json.dumps(content))
    (tmp_path / "g" / "model.safetensors").write_bytes(b"damaged")
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery) == 0
        with pytest.raises(InputError, match=r"model\.safetensors"):
            gallery.search(crops[0])


def test_gallery_whose_making_was_interrupted_is_made_again(tmp_path, crops):
    narrow = make_model(embed_dim=4)
    for model in (narrow, MODEL):
        Gallery.open(tmp_path / "g", model, create=True).close()
        if model is narrow:
            # Settings are written last.
            (tmp_path / "g" / "gallery.json").unlink()
    # A kill may leave a directory without a schema.
    collection = tmp_path / "killed" / "milvus.db" / "collections" / "rmgl_gallery"
    collection.mkdir(parents=True)
    (collection / "schema.json.tmp").write_text("{")
    (tmp_path / "killed" / "gallery.lock").write_text("process 1")
    Gallery.open(tmp_path / "killed", MODEL, create=True).close()
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.add(crops[:2]).added == 2
    # Images without settings are not thrown away.
    (tmp_path / "g" / "gallery.json").rename(tmp_path / "settings")
    with pytest.raises(InputError, match="2 images"):
        Gallery.open(tmp_path / "g", MODEL, create=True)
    (tmp_path / "settings").rename(tmp_path / "g" / "gallery.json")
    with Gallery.open(tmp_path / "g", MODEL) as gallery:
        assert len(gallery) == 2


def test_index_that_was_half_written_is_written_again(tmp_path, crops):
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        gallery.add(crops[:3])
        expected = gallery.search(crops[0])
    (index,) = (tmp_path / "g").rglob("*.idx")
    index.write_bytes(b"")
    (tmp_path / "g" / "gallery.lock").write_text("process 1")
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.search(crops[0]) == expected
    assert index.stat().st_size > 0


def test_recall_of_nothing_and_closed_galleries_are_refused(tmp_path):
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        for top, queries in ((0, 1), (10, 0)):
            with pytest.raises(InputError, match="0"):
                gallery.recall(top, queries)
    with pytest.raises(InputError, match="g is closed"):
        gallery.search(np.ones(gallery.settings.width))


def test_directory_is_open_in_one_process(tmp_path, crops):
    program = (
        "import sys\n"
        "from rmgl_jax import Gallery\n"
        "with Gallery.open(sys.argv[1], patience=60) as gallery: print(len(gallery))\n"
    )
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        with pytest.raises(InputError, match=f"process {os.getpid()}"):
            Gallery.open(tmp_path / "g", patience=0.1)
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "g")], stdout=subprocess.PIPE, text=True
        ) as waiting:
            gallery.add(crops[:3])
            gallery.close()
            # It waited, and sees what was added meanwhile.
            assert waiting.communicate(timeout=120)[0] == "3\n"


def test_copies_are_removed_after_a_kill_only(tmp_path, crops, monkeypatch):
    calls = []
    monkeypatch.setattr(Collection, "remove_copies", lambda self: calls.append(self.location))
    for _ in range(2):
        with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
            gallery.add(crops[:2])
        assert calls == []
    # A killed process leaves its number.
    (tmp_path / "g" / "gallery.lock").write_text("process 1")
    Gallery.open(tmp_path / "g").close()
    Gallery.open(tmp_path / "g").close()
    assert calls == [str(tmp_path / "g")]


def test_full_disk_keeps_what_was_added(tmp_path, crops):
    with Gallery.open(tmp_path / "g", MODEL, create=True, batch_size=4) as gallery:
        gallery.add(crops[:8])
        with full_disk(), pytest.raises(WriteError, match=str(tmp_path)):
            gallery.add(crops[8:])
    with Gallery.open(tmp_path / "g") as gallery:
        assert len(gallery) >= 8
        result = gallery.add(crops)
        assert result.added + result.present == len(gallery) == 30


def test_missing_engine_names_the_extra(tmp_path, monkeypatch):
    for package in ("pymilvus", "milvus_lite"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            with pytest.raises(MissingPackageError, match=rf"{package}.*rmgl_jax\[gallery\]"):
                Gallery.open(tmp_path / package, MODEL, create=True)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://127.0.0.1:99999", "ftp://127.0.0.1", "http://[::1"]
)
def test_unreachable_server_is_named(url):
    with pytest.raises(InputError, match=re.escape(url)):
        Gallery.open(url, MODEL, create=True)


def test_collection_has_a_plain_name():
    for name in ("a-b", "", "1a", "ä", 'a"'):
        with pytest.raises(InputError, match=re.escape(repr(name))):
            Gallery.open("http://127.0.0.1:1", MODEL, create=True, name=name)


def test_hnsw_finds_nearly_what_exact_search_finds(tmp_path, crops):
    with Gallery.open(tmp_path / "g", MODEL, create=True, index="hnsw") as gallery:
        assert gallery.recall() == 1
        gallery.add(crops)
        assert gallery.recall(5, queries=30) > 0.95
        assert gallery.search(crops[4])[0].entry.path == str(crops[4].path)


def test_added_images_survive_a_kill(tmp_path, crops):
    at = 2
    arguments = [str(tmp_path / "g"), str(at), *(str(crop.path) for crop in crops)]
    killed = subprocess.run(
        [sys.executable, "-m", "tests.killed_gallery", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    acknowledged = killed.stdout.split()
    assert len(acknowledged) == 3 * at
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        paths = [entry.path for entry in gallery.scan()]
        assert set(acknowledged) <= set(paths)
        result = gallery.add(crops)
        assert result.present == len(paths) == len(set(paths))
        assert sorted(entry.path for entry in gallery.scan()) == [str(c.path) for c in crops]


@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_gallery_finds_damage_of_any_file(tmp_path, crops, damage):
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        gallery.add(crops[:3])
    with Gallery.open(tmp_path / "g") as gallery:
        matches = gallery.search(crops[0])
    files = [path for path in (tmp_path / "g").rglob("*") if path.is_file()]
    covered = {"gallery.json", "model.safetensors", "checksums.json"}
    assert covered < {path.name for path in files}
    for path in files:
        content = path.read_bytes()
        if not content:
            continue
        if damage == "delete":
            path.unlink()
        else:
            half = len(content) // 2
            end = bytes([content[half] ^ 1]) + content[half + 1 :] if damage == "flip" else b""
            path.write_bytes(content[:half] + end)
        if path.name == "checksums.json" and damage == "delete":
            path.write_bytes(content)  # A gallery without checksums is accepted.
            continue
        for _ in range(2):  # The first refusal must not be taken for a kill.
            with pytest.raises(ExpectedError), Gallery.open(tmp_path / "g") as gallery:
                gallery.search(crops[0])
        path.write_bytes(content)
    with Gallery.open(tmp_path / "g") as gallery:
        assert gallery.search(crops[0]) == matches


def test_refused_options_do_not_hide_damage(tmp_path, crops):
    """After a refused option the files of the gallery are still compared with their checksums."""
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        gallery.add(crops[:3])
    for refused in (dict(flip=False), dict(index="hnsw"), dict(model=make_model(seed=1))):
        with pytest.raises(InputError):
            Gallery.open(tmp_path / "g", **refused)
    path = next(path for path in (tmp_path / "g").rglob("*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=path.name):
        Gallery.open(tmp_path / "g")


def test_gallery_that_is_not_made_leaves_no_directory(tmp_path):
    for refused in (dict(), dict(model=MODEL, dim=3), dict(model=MODEL, index="annoy")):
        with pytest.raises(InputError):
            Gallery.open(tmp_path / "new", create=True, **refused)
    assert not (tmp_path / "new").exists()


def test_directory_has_no_other_collection(tmp_path, crops):
    """A misspelled name must not show an empty gallery."""
    with Gallery.open(tmp_path / "g", MODEL, create=True) as gallery:
        gallery.add(crops[:1])
    with pytest.raises(InputError, match=str(tmp_path / "g")):
        Gallery.open(tmp_path / "g", name="other")


def test_new_gallery_has_the_default_width_of_the_projection(tmp_path, crops):
    whole = Embedder(MODEL)(crops)
    projection = fit_projection(whole, np.arange(len(crops)) % 5, 4)
    model = replace(MODEL, projection=replace(projection, default_dim=3))
    with Gallery.open(tmp_path / "g", model, create=True) as gallery:
        gallery.add(crops)
        (match,) = gallery.search(crops[1], top=1)
        np.testing.assert_allclose(
            gallery.embedding(match.entry.id), projection(whole, 3)[1], atol=1e-5
        )
    with Gallery.open(
        tmp_path / "all", replace(model, projection=projection), create=True
    ) as gallery:
        assert gallery.settings.width == whole.shape[1]
