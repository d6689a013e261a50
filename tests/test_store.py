import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data_prep
from data_prep.errors import InputError, MissingFileError, WriteError
from rmgl_jax.data.images import DECODING, decode
from rmgl_jax.data.split import Label, append_index
from rmgl_jax.data.store import decode_split, open_split
from tests.tiny_trees import prepare_partial, write_images, write_market

pytestmark = pytest.mark.network

SIZE = (24, 8)


def encoded(seed, size=(24, 8), image_format="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue(), pixels


def record(index, pid, camid, image_bytes=None):
    return {
        "image_bytes": encoded(index)[0] if image_bytes is None else image_bytes,
        "pid": pid,
        "camid": camid,
        "name": f"{pid:04d}_{index}.png",
    }


@dataclass
class FakeSource:
    """The examples of a split; records which were read, and raises those that are exceptions."""

    records: list
    reads: list

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        self.reads.append(index)
        found = self.records[index]
        if isinstance(found, BaseException):
            raise found
        found = {**found, "name": found["name"].encode()}
        return {"image": found.pop("image_bytes"), **found}


@dataclass
class FakeBuilder:
    """A builder of records in memory, with the attributes that the store uses."""

    data_dir: Path
    records: dict
    name: str = "tiny"
    builder_config: Any = None
    version: str = "1.0.0"

    def __post_init__(self):
        self.info = SimpleNamespace(splits=self.records)
        self.reads = []

    def as_data_source(self, split, decoders):
        return FakeSource(self.records[split], self.reads)


@pytest.fixture
def builder(tmp_path):
    """A builder of nine images of three identities."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data").write_bytes(b"as prepared")
    records = {"train": [record(i, pid=(7, 2, 1500)[i % 3], camid=i % 2) for i in range(9)]}
    return FakeBuilder(tmp_path / "set", records)


def pixels_file(builder):
    (path,) = builder.data_dir.glob("decoded/*.pixels")
    return path


def test_decode_split_holds_every_image_with_its_labels(builder):
    split = decode_split(builder, "train", SIZE)
    assert not split.images[:2].flags.writeable
    assert (split.images.shape, split.images.dtype) == ((9, 24, 8, 3), np.uint8)
    np.testing.assert_array_equal(split.images, [encoded(i)[1] for i in range(9)])
    assert split.pids.tolist() == [7, 2, 1500] * 3
    assert split.camids.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert split.names[4] == "0002_4.png"
    assert (split.dataset, split.version, split.split) == ("tiny", "1.0.0", "train")
    assert (split.pids.dtype, split.camids.dtype, split.labels.dtype) == (np.int32,) * 3
    assert split.labels.tolist() == [1, 0, 2] * 3
    assert split.num_classes == 3
    assert len(split) == 9


def test_split_batch_gathers_images_into_memory(builder):
    split = decode_split(builder, "train", SIZE)
    batch = split.batch(np.array([[5, 0], [5, 8]]))
    assert type(batch) is np.ndarray
    np.testing.assert_array_equal(batch[0, 0], encoded(5)[1])
    np.testing.assert_array_equal(batch[1, 0], encoded(5)[1])
    np.testing.assert_array_equal(batch[1, 1], encoded(8)[1])
    with pytest.raises(IndexError):
        split.batch(np.array([9]))


def test_decode_split_reuses_the_store(builder):
    first = decode_split(builder, "train", SIZE)
    path = pixels_file(builder)
    # A read-only directory suffices: the lock file is not made again.
    for file in path.parent.glob(".*"):
        file.unlink()
    builder.reads.clear()
    again = decode_split(builder, "train", SIZE)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.names == again.names
    assert not builder.reads
    assert list(path.parent.iterdir()) == [path]


def test_decode_split_separates_sizes_splits_versions_and_configurations(builder, tmp_path):
    records = builder.records["train"]
    builder = replace(builder, records={"train": records, "query": records[:4]})
    kept = tmp_path / "kept"
    for number in (1, 2):
        assert len(decode_split(builder, "train", SIZE, kept)) == 9
        assert len(decode_split(builder, "query", SIZE, kept)) == 4
        assert decode_split(builder, "train", (12, 4), kept).images.shape == (9, 12, 4, 3)
        config = SimpleNamespace(name="labeled")
        variant = replace(builder, builder_config=config, records={"train": records[:2]})
        assert decode_split(variant, "train", SIZE, kept).dataset == "tiny/labeled"
        assert len(decode_split(variant, "train", SIZE, kept)) == 2
        later = replace(builder, version="2.0.0", records={"train": records[:3]})
        assert len(decode_split(later, "train", SIZE, kept)) == 3
        assert len(list(kept.glob("*.pixels"))) == 5, number
    assert not (builder.data_dir / "decoded").exists()


def test_decode_split_replaces_the_store_of_a_dataset_that_was_prepared_again(builder, capsys):
    decode_split(builder, "train", SIZE)
    builder.records["train"][0] = record(77, pid=3, camid=0)
    # The same number of bytes, so that only the time differs.
    (builder.data_dir / "data").write_bytes(b"prepared as")
    os.utime(builder.data_dir / "data", ns=(0, 1))
    split = decode_split(builder, "train", SIZE)
    assert split.pids[0] == 3
    np.testing.assert_array_equal(split.images[0], encoded(77)[1])
    assert "source changed" in capsys.readouterr().err


def test_decode_split_replaces_a_store_of_another_decoding(builder, capsys):
    split = decode_split(builder, "train", SIZE)
    path, pixels = pixels_file(builder), np.array(split.images).tobytes()
    key = json.loads(path.read_bytes()[len(pixels) : -48])["key"]
    assert key["decoding"] == DECODING
    path.write_bytes(pixels[::-1])
    labels = list(map(Label, range(9), range(9), "a" * 9))
    append_index(path, {**key, "decoding": "another"}, labels, [0] * 9)
    with pytest.raises(InputError, match="decoding"):
        open_split(path, key)
    assert np.array(decode_split(builder, "train", SIZE).images).tobytes() == pixels
    assert "decoding changed" in capsys.readouterr().err


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "short":
        del content[:100]
    elif how == "cut":
        del content[-100:]
    elif how == "empty":
        content.clear()
    elif how == "stub":
        del content[20:]
    elif how == "index":
        content[-60] ^= 1
    elif how == "magic":
        content[-48] ^= 1
    elif how == "length":
        content[-33] ^= 1
    elif how == "longer length":
        content[-40] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "how", ["short", "cut", "empty", "stub", "index", "magic", "length", "longer length"]
)
def test_decode_split_replaces_a_damaged_store(builder, how, capsys):
    images = np.array(decode_split(builder, "train", SIZE).images)
    path = pixels_file(builder)
    damage(path, how)
    with pytest.raises(InputError, match="is damaged"):
        open_split(path)
    np.testing.assert_array_equal(decode_split(builder, "train", SIZE).images, images)
    assert "is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(open_split(path).images, images)


def test_open_split_detects_any_damage_to_index_or_trailer(builder):
    decode_split(builder, "train", SIZE)
    path = pixels_file(builder)
    whole = path.read_bytes()
    for position in range(9 * 24 * 8 * 3, len(whole), 7):
        content = bytearray(whole)
        content[position] ^= 1 << (position % 8)
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            open_split(path)


def read_image_four(split, how):
    if how == "batch":
        return split.batch(np.array([[1, 2], [4, 0]]))
    if how == "one":
        return split.images[4]
    if how == "slice":
        return split.images[3:6]
    if how == "part":
        return split.images[:, ::2]
    return np.asarray(split.images)


@pytest.mark.parametrize("how", ["batch", "one", "slice", "part", "all"])
@pytest.mark.parametrize("harm", ["bit", "zeros"])
def test_split_never_gives_damaged_pixels(builder, how, harm):
    whole = np.array(decode_split(builder, "train", SIZE).images)
    path = pixels_file(builder)
    content = bytearray(path.read_bytes())
    if harm == "bit":
        content[4 * whole[0].nbytes + 17] ^= 4
    else:
        content[4 * whole[0].nbytes : 5 * whole[0].nbytes] = bytes(whole[0].nbytes)
    path.write_bytes(content)
    # Other images can still be read, also repeatedly.
    split = decode_split(builder, "train", SIZE)
    for _ in range(2):
        np.testing.assert_array_equal(split.batch(np.array([0, 8, 0])), whole[[0, 8, 0]])
        np.testing.assert_array_equal(split.images[5:], whole[5:])
        with pytest.raises(InputError, match=rf"(?s){path} .*image 4.*Delete the file"):
            read_image_four(split, how)
    path.unlink()
    np.testing.assert_array_equal(decode_split(builder, "train", SIZE).images, whole)


def test_split_finds_damage_in_every_image(builder):
    decode_split(builder, "train", SIZE)
    path = pixels_file(builder)
    whole = path.read_bytes()
    size = 24 * 8 * 3
    for position in range(0, 9 * size, 53):
        content = bytearray(whole)
        content[position] ^= 1 << (position % 8)
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"image {position // size}"):
            open_split(path).batch(np.arange(9))


def test_split_checks_an_image_only_when_it_is_first_read(builder):
    split = decode_split(builder, "train", SIZE)
    first = split.batch(np.array([4]))
    with open(pixels_file(builder), "r+b") as file:
        file.seek(4 * first.nbytes)
        file.write(b"changed")
    assert split.batch(np.array([4]))[0, 0, 0].tobytes() == b"cha"


def test_decode_split_replaces_a_store_without_checksums(builder, capsys):
    images = np.array(decode_split(builder, "train", SIZE).images)
    path = pixels_file(builder)
    content = bytearray(path.read_bytes())
    content[-48:-40] = b"rmgl-1\r\n"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no checksums"):
        open_split(path)
    np.testing.assert_array_equal(decode_split(builder, "train", SIZE).images, images)
    assert "no checksums" in capsys.readouterr().err
    assert open_split(path).names


def test_decode_split_names_all_bad_images_and_leaves_nothing(builder):
    good = encoded(3)[0]
    train = builder.records["train"]
    train[1] = record(1, 2, 0, good[: len(good) // 2])
    train[4] = record(4, 2, 0, b"")
    train[8] = record(8, 9, 0, b"GIF89a is not one of ours")
    with pytest.raises(InputError, match="3 images of tiny's split 'train'") as error:
        decode_split(builder, "train", SIZE)
    for name in ("0002_1.png", "0002_4.png", "0009_8.png"):
        assert f"{name}: " in str(error.value)
    assert not [f for f in (builder.data_dir / "decoded").iterdir() if f.suffix != ".lock"]


def test_decode_split_leaves_nothing_after_an_interrupt(builder):
    builder.records["train"][6], sixth = KeyboardInterrupt(), builder.records["train"][6]
    with pytest.raises(KeyboardInterrupt):
        decode_split(builder, "train", SIZE)
    directory = builder.data_dir / "decoded"
    assert [file.suffix for file in directory.iterdir()] == [".lock"]
    # The temporary file of a killed run is neither opened nor kept.
    leftover = directory / ".tiny-1.0.0-train-24x8.pixels.99.partial"
    leftover.write_bytes(b"half")
    builder.records["train"][6] = sixth
    split = decode_split(builder, "train", SIZE)
    np.testing.assert_array_equal(split.images[6], encoded(6)[1])
    assert not leftover.exists()


def test_decode_split_decodes_once_for_two_callers(builder):
    splits = []
    threads = [
        threading.Thread(target=lambda: splits.append(decode_split(builder, "train", SIZE)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builder.reads) == 9
    assert len(splits) == 2
    np.testing.assert_array_equal(splits[0].images, splits[1].images)


def test_split_stays_valid_when_its_store_is_replaced(builder):
    # Training goes on with its pixels while another process replaces the store.
    old = decode_split(builder, "train", SIZE)
    before = np.array(old.images)
    builder.records["train"].reverse()
    os.utime(builder.data_dir / "data", ns=(0, 2))
    new = decode_split(builder, "train", SIZE)
    np.testing.assert_array_equal(old.images, before)
    np.testing.assert_array_equal(new.images, before[::-1])


def test_decode_split_of_a_dataset_without_cameras_has_no_camids(builder):
    builder.records["train"][:] = [record(i, 1, -1) for i in range(3)]
    assert decode_split(builder, "train", SIZE).camids is None


def test_decode_split_rejects_labels_and_sizes_that_cannot_be_stored(builder):
    builder.records["train"][3] = record(3, 1, -1)
    with pytest.raises(InputError, match="1 of 9 images of tiny"):
        decode_split(builder, "train", SIZE)
    builder.records["train"][3] = record(3, 2**31, 0)
    with pytest.raises(InputError, match="pid 2147483648"):
        decode_split(builder, "train", SIZE)
    builder.records["train"][3] = record(3, 1, 2**31)
    with pytest.raises(InputError, match="camid 2147483648"):
        decode_split(builder, "train", SIZE)
    builder.records["train"].clear()
    with pytest.raises(InputError, match=r"tiny.*'train'"):
        decode_split(builder, "train", SIZE)
    with pytest.raises(InputError, match=r"\(0, 8\)"):
        decode_split(builder, "train", (0, 8))


def test_decode_split_names_a_directory_that_cannot_be_written(builder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(WriteError, match=f"{blocked}.*store_dir"):
        decode_split(builder, "train", SIZE, blocked)


def test_decode_split_without_write_access_decodes_into_the_cache(builder, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (builder.data_dir / "decoded").touch()
    split = decode_split(builder, "train", SIZE)
    assert len(list((tmp_path / "cache" / "rmgl_jax" / "decoded").glob("*.pixels"))) == 1
    np.testing.assert_array_equal(split.images[3], encoded(3)[1])
    builder.reads.clear()
    assert decode_split(builder, "train", SIZE).digest == split.digest
    assert builder.reads == []
    # Other data of the same name has its own store.
    (builder.data_dir / "data").write_bytes(b"prepared again")
    decode_split(builder, "train", SIZE)
    assert len(builder.reads) == 9


def test_split_digest_depends_on_images_and_labels_alone(builder, tmp_path):
    digest = decode_split(builder, "train", SIZE).digest
    assert len(digest) == 64
    copy = replace(builder, data_dir=Path(shutil.copytree(builder.data_dir, tmp_path / "copy")))
    os.utime(copy.data_dir / "data", (0, 0))
    assert decode_split(copy, "train", (12, 8)).digest == digest
    first = builder.records["train"][0]
    for number, changed in enumerate(
        (
            record(77, first["pid"], first["camid"]) | {"name": first["name"]},
            first | {"pid": 2},
            first | {"camid": 1},
            first | {"name": "renamed.png"},
        )
    ):
        builder.records["train"][0] = changed
        other = decode_split(builder, "train", SIZE, tmp_path / f"other{number}")
        assert other.digest != digest


def test_decode_split_replaces_a_store_without_a_digest(builder):
    split = decode_split(builder, "train", SIZE)
    path = pixels_file(builder)
    content, n_pixels = path.read_bytes(), 9 * 24 * 8 * 3
    index = json.loads(content[n_pixels:-48])
    del index["digest"]
    encoded_index = json.dumps(index).encode()
    checksum = hashlib.sha256(encoded_index).digest()
    trailer = content[-48:-40] + struct.pack("<Q", len(encoded_index)) + checksum
    path.write_bytes(content[:n_pixels] + encoded_index + trailer)
    with pytest.raises(InputError, match="earlier version"):
        open_split(path)
    assert decode_split(builder, "train", SIZE).digest == split.digest


def test_decode_split_of_an_unknown_split_raises_key_error(tmp_path):
    builder = prepare_partial("market1501", write_market(tmp_path / "raw"), tmp_path / "tfds")
    with pytest.raises(KeyError, match="validation"):
        decode_split(builder, "validation", SIZE)
    with pytest.raises(MissingFileError, match=r"none\.pixels"):
        open_split(tmp_path / "none.pixels")


def test_decode_split_in_workers_equals_decode_split_in_this_process(tmp_path):
    builder = prepare_partial("market1501", write_market(tmp_path / "raw"), tmp_path / "tfds")
    alone = decode_split(builder, "gallery", (64, 32), tmp_path / "alone", processes=1)
    together = decode_split(builder, "gallery", (64, 32), processes=2)
    np.testing.assert_array_equal(together.images, alone.images)
    assert together.names == alone.names
    records = data_prep.read_records(builder, "gallery")
    assert len(together) == len(records)
    for i, one in enumerate(records):
        np.testing.assert_array_equal(together.images[i], decode(one["image_bytes"], (64, 32)))
        assert (together.pids[i], together.camids[i]) == (one["pid"], one["camid"])
        assert together.names[i] == one["name"]
    # The store lies in the directory of the dataset, which can still be opened.
    opened = data_prep.open_prepared(builder.data_dir)
    assert len(data_prep.read_records(opened, "gallery")) == len(records)
    again = decode_split(opened, "gallery", (64, 32))
    assert again.images.shape == (len(records), 64, 32, 3)


def test_decode_split_in_workers_names_bad_images(builder):
    builder.records["train"][4] = record(4, 2, 0, b"")
    with pytest.raises(InputError, match=r"(?s)1 images of tiny.*0002_4\.png: "):
        decode_split(builder, "train", SIZE, processes=2)


def test_decode_split_of_many_images_works_in_an_unguarded_script(tmp_path):
    names = [f"{pid:04d}_c1s1_{pid:06d}_00.jpg" for pid in range(1, 1026)]
    write_images(tmp_path / "raw" / "bounding_box_train", names)
    write_images(tmp_path / "raw" / "query", names[:1])
    write_images(tmp_path / "raw" / "bounding_box_test", names[:1])
    builder = prepare_partial("market1501", tmp_path / "raw", tmp_path / "tfds")
    script = tmp_path / "script.py"
    script.write_text(
        "import data_prep\n"
        "from rmgl_jax.data.store import decode_split\n"
        f"builder = data_prep.open_prepared({str(builder.data_dir)!r})\n"
        "print(len(decode_split(builder, 'train', (8, 4))))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = partial(subprocess.run, capture_output=True, text=True, env=environment, check=False)
    finished = run([sys.executable, script])
    assert finished.stdout.split() == ["1025"], finished.stderr


def test_decode_resizes_without_aliasing_in_rgb():
    board = np.zeros((64, 64, 3), np.uint8)
    board[..., 0] = np.indices((64, 64)).sum(axis=0) % 2 * 255
    file = io.BytesIO()
    Image.fromarray(board).save(file, "PNG")
    small = decode(file.getvalue(), (16, 8))
    assert small.shape == (16, 8, 3)
    assert small.dtype == np.uint8
    assert np.abs(small[..., 0].astype(int) - 127).max() <= 2
    assert (small[..., 1:] == 0).all()


def test_decode_sets_photographs_upright_and_reads_every_mode():
    pixels = np.zeros((20, 10, 3), np.uint8)
    pixels[:10] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(decode(file.getvalue(), (20, 10)), pixels[::-1])
    for mode in ("L", "P", "RGBA", "LA", "1"):
        file = io.BytesIO()
        image.convert(mode).save(file, "PNG")
        np.testing.assert_array_equal(decode(file.getvalue(), (20, 10)), pixels)


def sixteen_bits(pixels, **save):
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16)).save(file, "PNG", **save)
    return file.getvalue()


def test_decode_keeps_the_tones_of_16_bit_gray():
    gray = np.arange(256, dtype=np.uint16).reshape(32, 8)
    expected = np.repeat(gray.astype(np.uint8)[..., None], 3, axis=-1)
    # Both ways to widen 8 bits to 16, and what lies between two tones.
    for wide in (gray * 257, gray << 8, (gray << 8) + 255):
        np.testing.assert_array_equal(decode(sixteen_bits(wide), (32, 8)), expected)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = decode(sixteen_bits(gray * 257, exif=exif), (32, 8))
    np.testing.assert_array_equal(turned, expected[::-1, ::-1])


def test_decode_of_the_same_size_changes_nothing():
    image_bytes, pixels = encoded(5)
    np.testing.assert_array_equal(decode(image_bytes, SIZE), pixels)


def test_split_is_frozen(builder):
    split = decode_split(builder, "train", SIZE)
    with pytest.raises(AttributeError):
        split.pids = None
    assert replace(split, dataset="other").labels.tolist() == split.labels.tolist()
