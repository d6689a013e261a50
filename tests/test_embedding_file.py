"""Files of embeddings that are written batch by batch."""

import os
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import InputError
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.embedding_file import check_storable, write_embeddings

CROPS = [
    Crop(Path("a.png"), (1, 2, 3, 4), 7, "3", 1709290800.5, ("red", "bag")),
    Crop(Path('ü/"b"\n.png')),
    Crop(Path("c.png"), pid=-1, camera="12"),
]
EMBEDDINGS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def write(path, crops=CROPS, embeddings=EMBEDDINGS, precision="float32"):
    with write_embeddings(path, embeddings.shape[1], precision) as append:
        append(crops[:2], embeddings[:2])
        append([], embeddings[:0])
        append(crops[2:], embeddings[2:])
    return path


def test_npz_has_what_is_known(tmp_path):
    with np.load(write(tmp_path / "made" / "a.npz")) as found:
        assert set(found) == {"embedding", "path", "pid", "camid", "box"}
        np.testing.assert_array_equal(found["embedding"], EMBEDDINGS)
        assert found["embedding"].dtype == np.float32
        assert list(found["path"]) == [str(crop.path) for crop in CROPS]
        assert list(found["pid"]) == [7, -1, -1]
        assert list(found["camid"]) == [3, -1, 12]
        assert found["box"].tolist() == [[1, 2, 3, 4], [-1] * 4, [-1] * 4]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["a.npz"]
    bare = [Crop(Path(name)) for name in "abc"]
    with np.load(write(tmp_path / "bare.npz", bare)) as found:
        assert set(found) == {"embedding", "path"}


def test_npz_has_names_of_cameras(tmp_path):
    crops = [Crop(Path("a"), camera="door"), Crop(Path("b"), camera="2"), Crop(Path("c"))]
    with np.load(write(tmp_path / "a.npz", crops)) as found:
        assert set(found) == {"embedding", "path", "camera"}
        assert list(found["camera"]) == ["door", "2", ""]


def test_npz_keeps_cameras_with_leading_zeros_apart(tmp_path):
    crops = [
        Crop(Path(name), camera=camera) for name, camera in zip("ab", ("01", "1"), strict=True)
    ]
    with np.load(write(tmp_path / "a.npz", crops, EMBEDDINGS[:2])) as found:
        assert list(found["camera"]) == ["01", "1"]


def test_npz_of_many_batches_equals_one_array(tmp_path):
    random = np.random.default_rng(1)
    parts = [random.normal(size=(size, 3)).astype(np.float32) for size in (5000, 1, 4096, 70)]
    whole = np.concatenate(parts)
    with write_embeddings(tmp_path / "a.npz", 3) as append:
        done = 0
        for part in parts:
            append([Crop(Path(f"{done + i}.png"), pid=done + i) for i in range(len(part))], part)
            done += len(part)
    with np.load(tmp_path / "a.npz") as found:
        np.testing.assert_array_equal(found["embedding"], whole)
        np.testing.assert_array_equal(found["pid"], np.arange(done))
        assert list(found["path"]) == [f"{i}.png" for i in range(done)]


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_files_hold_fewer_bits(suffix, precision, tmp_path):
    path = write(tmp_path / f"a.{suffix}", precision=precision)
    if suffix == "npz":
        found = dict(np.load(path))
        values, scale = found["embedding"], found.get("scale", 1)
    else:
        pq = pytest.importorskip("pyarrow.parquet", reason="Parquet requires pyarrow")
        table = pq.read_table(path)
        values = table["embedding"].combine_chunks().flatten().to_numpy().reshape(3, 5)
        scale = table["scale"].to_numpy() if precision == "int8" else 1
    assert values.dtype == precision
    restored = values.astype(np.float32) * np.reshape(scale, (-1, 1))
    limit = np.abs(EMBEDDINGS).max(axis=1, keepdims=True) / (2048 if precision != "int8" else 254)
    assert (np.abs(restored - EMBEDDINGS) <= 1.001 * limit).all()
    assert not np.array_equal(restored, EMBEDDINGS)


def test_parquet_has_all_fields(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason="Parquet requires pyarrow")
    table = pq.read_table(write(tmp_path / "a.parquet")).to_pylist()
    np.testing.assert_array_equal(
        np.array([row.pop("embedding") for row in table], np.float32), EMBEDDINGS
    )
    assert table[0] == {
        "path": "a.png",
        **{"left": 1, "top": 2, "right": 3, "bottom": 4},
        "pid": 7,
        "camera": "3",
        "time": datetime.fromtimestamp(1709290800.5, UTC),
        "labels": ["red", "bag"],
    }
    unknown = dict.fromkeys(table[0]) | {"path": str(CROPS[1].path), "labels": []}
    assert table[1] == unknown
    assert table[2] == unknown | {"path": "c.png", "pid": -1, "camera": "12"}


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_files_appear_only_when_complete(suffix, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet requires pyarrow")
    path = tmp_path / f"a.{suffix}"
    path.write_text("earlier")

    def stop():
        with write_embeddings(path, 5) as append:
            append(CROPS, EMBEDDINGS)
            raise OSError("stopped")

    with pytest.raises(OSError, match="stopped"):
        stop()
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_are_not_unicode_are_refused_for_parquet_only():
    odd = Crop(Path(os.fsdecode(b"a\xff.png")))
    check_storable(odd, Path("a.npz"))
    check_storable(CROPS[0], Path("a.parquet"))
    with pytest.raises(InputError, match="udcff"):
        check_storable(odd, Path("a.parquet"))


def test_files_of_other_suffix_are_rejected(tmp_path):
    with pytest.raises(InputError, match=r"a\.csv"):
        write_embeddings(tmp_path / "a.csv", 5)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_memory_does_not_grow_with_the_number_of_embeddings(suffix, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet requires pyarrow")
    path = tmp_path / f"a.{suffix}"
    # Whatever else the process does at the time adds to the peak, so the lowest of some counts.
    few, many = (min(peak_memory(path, batches) for _ in range(3)) for batches in (20, 40))
    # The embeddings of the larger file take 5 MiB more.
    assert many < few + 2**20


def peak_memory(path, batches):
    """Bytes in use at most while a file of so many batches of 256 embeddings is written."""
    tracemalloc.start()
    with write_embeddings(path, 256) as append:
        for batch in range(batches):
            crops = [Crop(Path(f"{batch}/{i}.png"), pid=i, camera="1") for i in range(256)]
            append(crops, np.full((256, 256), batch, np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
