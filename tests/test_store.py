import io
import os
import threading
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import data_prep
from rmgl_jax.data import store
from rmgl_jax.data.images import decode
from rmgl_jax.data.store import open_split, prepare
from tests.tiny_trees import prepare_partial, write_market

FakeBuilder = namedtuple("FakeBuilder", "name builder_config version data_dir records")
Config = namedtuple("Config", "name")
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


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """A builder of nine images of three identities, as far as the store can tell."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "data").write_bytes(b"as prepared")
    records = {"train": [record(i, pid=(7, 2, 1500)[i % 3], camid=i % 2) for i in range(9)]}
    monkeypatch.setattr(store, "read_records", lambda builder, split: builder.records[split])
    return FakeBuilder("tiny", None, "1.0.0", tmp_path / "set", records)


def pixels_file(builder):
    (path,) = builder.data_dir.glob("decoded/*.pixels")
    return path


def never_decode(*_):
    raise AssertionError("decoded although a store is there")


def test_a_split_holds_every_image_with_its_labels(builder):
    split = prepare(builder, "train", SIZE)
    assert isinstance(split.images, np.memmap)
    assert not split.images.flags.writeable
    np.testing.assert_array_equal(split.images, [encoded(i)[1] for i in range(9)])
    assert split.pids.tolist() == [7, 2, 1500] * 3
    assert split.camids.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert split.names[4] == "0002_4.png"
    assert (split.dataset, split.version, split.split) == ("tiny", "1.0.0", "train")
    assert (split.pids.dtype, split.camids.dtype, split.labels.dtype) == (np.int32,) * 3
    assert split.labels.tolist() == [1, 0, 2] * 3
    assert split.num_classes == 3
    assert len(split) == 9


def test_a_batch_is_a_gather_into_memory(builder):
    split = prepare(builder, "train", SIZE)
    batch = split.batch(np.array([[5, 0], [5, 8]]))
    assert type(batch) is np.ndarray
    np.testing.assert_array_equal(batch[0, 0], encoded(5)[1])
    np.testing.assert_array_equal(batch[1, 0], encoded(5)[1])
    np.testing.assert_array_equal(batch[1, 1], encoded(8)[1])
    with pytest.raises(IndexError):
        split.batch(np.array([9]))


def test_the_second_time_nothing_is_decoded(builder, monkeypatch):
    first = prepare(builder, "train", SIZE)
    monkeypatch.setattr(store, "decode", never_decode)
    again = prepare(builder, "train", SIZE)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.names == again.names


def test_a_store_that_may_only_be_read_is_enough(builder, monkeypatch):
    prepare(builder, "train", SIZE)
    for file in (builder.data_dir / "decoded").glob(".*"):
        file.unlink()
    monkeypatch.setattr(store, "_lock", never_decode)
    assert len(prepare(builder, "train", SIZE)) == 9


def test_sizes_splits_sets_and_configurations_are_kept_apart(builder, tmp_path):
    records = builder.records["train"]
    builder = builder._replace(records={"train": records, "query": records[:4]})
    kept = tmp_path / "kept"
    for number in (1, 2):
        assert len(prepare(builder, "train", SIZE, kept)) == 9
        assert len(prepare(builder, "query", SIZE, kept)) == 4
        assert prepare(builder, "train", (12, 4), kept).images.shape == (9, 12, 4, 3)
        variant = builder._replace(builder_config=Config("labeled"), records={"train": records[:2]})
        assert prepare(variant, "train", SIZE, kept).dataset == "tiny/labeled"
        assert len(prepare(variant, "train", SIZE, kept)) == 2
        later = builder._replace(version="2.0.0", records={"train": records[:3]})
        assert len(prepare(later, "train", SIZE, kept)) == 3
        assert len(list(kept.glob("*.pixels"))) == 5, number
    assert not (builder.data_dir / "decoded").exists()


def test_a_set_prepared_anew_is_decoded_anew(builder, capsys):
    prepare(builder, "train", SIZE)
    builder.records["train"][0] = record(77, pid=3, camid=0)
    # As many bytes as before: only the time tells.
    (builder.data_dir / "data").write_bytes(b"prepared as")
    os.utime(builder.data_dir / "data", ns=(0, 1))
    split = prepare(builder, "train", SIZE)
    assert split.pids[0] == 3
    np.testing.assert_array_equal(split.images[0], encoded(77)[1])
    assert "source changed" in capsys.readouterr().err


def test_what_is_decoded_otherwise_is_not_used(builder, monkeypatch, capsys):
    prepare(builder, "train", SIZE)
    monkeypatch.setattr(store, "DECODING", "another")
    prepare(builder, "train", SIZE)
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
def test_a_damaged_store_is_refused_and_made_anew(builder, how, capsys):
    images = np.array(prepare(builder, "train", SIZE).images)
    path = pixels_file(builder)
    damage(path, how)
    with pytest.raises(ValueError, match="is damaged"):
        open_split(path)
    np.testing.assert_array_equal(prepare(builder, "train", SIZE).images, images)
    assert "is damaged" in capsys.readouterr().err
    np.testing.assert_array_equal(open_split(path).images, images)


def test_any_damage_to_index_or_trailer_shows(builder):
    prepare(builder, "train", SIZE)
    path = pixels_file(builder)
    whole = path.read_bytes()
    for position in range(9 * 24 * 8 * 3, len(whole), 7):
        content = bytearray(whole)
        content[position] ^= 1 << (position % 8)
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            open_split(path)


def test_bad_images_are_all_named_and_nothing_is_left(builder):
    good = encoded(3)[0]
    train = builder.records["train"]
    train[1] = record(1, 2, 0, good[: len(good) // 2])
    train[4] = record(4, 2, 0, b"")
    train[8] = record(8, 9, 0, b"GIF89a is not one of ours")
    with pytest.raises(ValueError, match="3 images of tiny's split 'train'") as error:
        prepare(builder, "train", SIZE)
    for name in ("0002_1.png", "0002_4.png", "0009_8.png"):
        assert f"{name}: " in str(error.value)
    assert not [f for f in (builder.data_dir / "decoded").iterdir() if f.suffix != ".lock"]


def test_an_interrupted_run_leaves_nothing_and_the_next_one_is_whole(builder, monkeypatch):
    def interrupted(image_bytes, size):
        if image_bytes == builder.records["train"][6]["image_bytes"]:
            raise KeyboardInterrupt
        return decode(image_bytes, size)

    with monkeypatch.context() as patch:
        patch.setattr(store, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(builder, "train", SIZE)
    directory = builder.data_dir / "decoded"
    assert [file.suffix for file in directory.iterdir()] == [".lock"]
    # What a killed run leaves behind is neither taken for a store nor kept.
    leftover = directory / ".tiny-1.0.0-train-24x8.pixels.99.partial"
    leftover.write_bytes(b"half")
    np.testing.assert_array_equal(prepare(builder, "train", SIZE).images[6], encoded(6)[1])
    assert not leftover.exists()


def test_of_two_at_once_one_decodes_and_both_get_it(builder, monkeypatch):
    decoded, splits = [], []

    def counted(image_bytes, size):
        decoded.append(size)
        return decode(image_bytes, size)

    monkeypatch.setattr(store, "decode", counted)
    threads = [
        threading.Thread(target=lambda: splits.append(prepare(builder, "train", SIZE)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 9
    assert len(splits) == 2
    np.testing.assert_array_equal(splits[0].images, splits[1].images)


def test_an_open_split_survives_the_next_version(builder):
    # A running training keeps its pixels while another process makes the store anew.
    old = prepare(builder, "train", SIZE)
    before = np.array(old.images)
    builder.records["train"].reverse()
    os.utime(builder.data_dir / "data", ns=(0, 2))
    new = prepare(builder, "train", SIZE)
    np.testing.assert_array_equal(old.images, before)
    np.testing.assert_array_equal(new.images, before[::-1])


def test_a_set_without_cameras_has_none(builder):
    builder.records["train"][:] = [record(i, 1, -1) for i in range(3)]
    assert prepare(builder, "train", SIZE).camids is None


def test_refuses_what_cannot_be_stored(builder):
    builder.records["train"][3] = record(3, 1, -1)
    with pytest.raises(ValueError, match="1 of 9 images of tiny have no camera id"):
        prepare(builder, "train", SIZE)
    builder.records["train"][3] = record(3, 2**31, 0)
    with pytest.raises(ValueError, match="pid 2147483648 is not within 32 bits"):
        prepare(builder, "train", SIZE)
    builder.records["train"].clear()
    with pytest.raises(ValueError, match="no images in its split 'train'"):
        prepare(builder, "train", SIZE)
    with pytest.raises(ValueError, match=r"positive height and width, got \(0, 8\)"):
        prepare(builder, "train", (0, 8))


def test_a_directory_that_cannot_be_written_is_named(builder, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot be kept in .*file.*give a store_dir"):
        prepare(builder, "train", SIZE, blocked)


def test_several_processes_make_the_same_store_from_a_real_set(tmp_path, monkeypatch):
    builder = prepare_partial("market1501", write_market(tmp_path / "raw"), tmp_path / "tfds")
    alone = prepare(builder, "gallery", (64, 32), tmp_path / "alone", processes=1)
    monkeypatch.setattr(store, "_FEW", 0)
    monkeypatch.setattr(store, "_CHUNK", 1)
    together = prepare(builder, "gallery", (64, 32), processes=2)
    np.testing.assert_array_equal(together.images, alone.images)
    assert together.names == alone.names
    records = data_prep.read_records(builder, "gallery")
    assert len(together) == len(records)
    for i, one in enumerate(records):
        np.testing.assert_array_equal(together.images[i], decode(one["image_bytes"], (64, 32)))
        assert (together.pids[i], together.camids[i]) == (one["pid"], one["camid"])
        assert together.names[i] == one["name"]
    # The store lies in the set's directory and does not get in its way.
    assert len(data_prep.read_records(data_prep.open_prepared(builder.data_dir), "gallery")) > 0
    assert prepare(data_prep.open_prepared(builder.data_dir), "gallery", (64, 32)).images.shape == (
        len(records),
        64,
        32,
        3,
    )


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


def test_decode_of_the_same_size_changes_nothing():
    image_bytes, pixels = encoded(5)
    np.testing.assert_array_equal(decode(image_bytes, SIZE), pixels)


def test_a_split_is_frozen(builder):
    split = prepare(builder, "train", SIZE)
    with pytest.raises(AttributeError):
        split.pids = None
    assert replace(split, dataset="other").labels.tolist() == split.labels.tolist()
