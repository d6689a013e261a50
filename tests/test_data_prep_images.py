import json
import os
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import data_prep
from data_prep.images import bad_images, image_problem
from rmgl_jax.data.images import decode
from tests.tiny_trees import image_bytes, prepare_partial, write_images


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_image_problem_accepts_whole_images_of_any_suffix(tmp_path, image_format):
    path = tmp_path / "a.jpg"
    path.write_bytes(image_bytes(0, image_format))
    assert image_problem(path) is None


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
def test_image_problem_accepts_other_modes(tmp_path, mode):
    Image.fromarray(np.zeros((4, 4), np.uint8)).convert(mode).save(tmp_path / "a.png")
    assert image_problem(tmp_path / "a.png") is None


def test_bad_images_tells_every_kind_of_bad_file(tmp_path):
    whole = image_bytes(0)
    bad = {
        "empty.jpg": b"",
        "half.jpg": whole[: len(whole) // 2],
        "text.jpg": b"this is not an image",
        "gif.jpg": image_bytes(0, "GIF"),
        "zeros.jpg": bytes(1000),
        "half.png": image_bytes(0, "PNG")[:3000],
    }
    for name, encoded in bad.items():
        (tmp_path / name).write_bytes(encoded)
    (tmp_path / "good.jpg").write_bytes(whole)
    paths = [tmp_path / name for name in [*bad, "good.jpg", "missing.jpg"]]
    problems = dict(bad_images(paths, "checking"))
    assert list(problems) == [path for path in paths if path.name != "good.jpg"]
    assert problems[tmp_path / "empty.jpg"] == "is empty"
    assert "truncated" in problems[tmp_path / "half.jpg"]
    assert "not an image" in problems[tmp_path / "text.jpg"]
    assert "No such file" in problems[tmp_path / "missing.jpg"]


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_image_problem_refuses_headers_of_huge_images(tmp_path, side):
    encoded = bytearray(image_bytes(0, "BMP"))
    encoded[18:26] = side.to_bytes(4, "little") * 2
    (tmp_path / "a.bmp").write_bytes(encoded)
    assert "DecompressionBomb" in image_problem(tmp_path / "a.bmp")


def test_image_problem_refuses_pipes_devices_and_huge_files(tmp_path):
    # Reading any of them would never end, or fill the memory.
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 2**40)
    problems = dict(bad_images(sorted(tmp_path.iterdir()), "checking"))
    assert [path.name for path in problems] == ["huge.jpg", "loop.jpg", "pipe.jpg", "zero.jpg"]
    assert f"{2**40:,}" in problems[tmp_path / "huge.jpg"]


def test_bad_images_finds_the_same_in_several_processes(tmp_path):
    whole = image_bytes(0)
    for i in range(300):
        (tmp_path / f"{i:04d}.jpg").write_bytes(whole[:1500] if i % 97 == 0 else whole)
    paths = sorted(tmp_path.iterdir())
    found = bad_images(paths, "checking", processes=2)
    assert [path.name for path, _ in found] == [f"{i:04d}.jpg" for i in range(0, 300, 97)]
    assert found == bad_images(paths, "checking", processes=1)


def corrupt(encoded: bytes, kind: str, rng: np.random.Generator) -> bytes:
    if kind == "truncated":
        return encoded[: rng.integers(1, len(encoded))]
    if kind == "empty":
        return b""
    if kind == "wrong type":
        return rng.bytes(rng.integers(1, 4000))
    flipped = np.frombuffer(encoded, np.uint8).copy()
    for _ in range(rng.integers(1, 20)):
        flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
    return flipped.tobytes()


def test_500_corrupted_files_are_each_named_or_decoded(tmp_path):
    rng = np.random.default_rng(0)
    source = tmp_path / "Market"
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        write_images(source / folder, [f"{pid:04d}_c1s1_000000_00.jpg" for pid in range(10)])
    kinds = np.resize(["truncated", "bit-flipped", "empty", "wrong type"], 500)
    corrupted = []
    for i, kind in enumerate(kinds):
        path = source / "bounding_box_train" / f"{1000 + i}_c2s1_000000_00.jpg"
        path.write_bytes(corrupt(image_bytes(i, ("JPEG", "PNG")[i // 4 % 2]), kind, rng))
        corrupted.append(path)

    with pytest.raises(ValueError, match="bad files") as error:
        prepare_partial("market1501", source, tmp_path / "tfds")

    named = [path for path in corrupted if f"{path}: " in str(error.value)]
    assert len(named) == str(error.value).count("\n")  # and no whole file is named
    assert not list((tmp_path / "tfds" / "market1501").glob("[!.]*"))
    # What is not named does decode.
    for path in set(corrupted) - set(named):
        assert decode(path.read_bytes(), (64, 32)).shape == (64, 32, 3)
    survived = Counter(str(kinds[corrupted.index(path)]) for path in set(corrupted) - set(named))
    assert survived["empty"] == survived["wrong type"] == 0
    assert 0 < survived["bit-flipped"] < 125

    # Without the named files the rest is prepared, byte for byte.
    for path in named:
        path.unlink()
    records = data_prep.read_records(
        prepare_partial("market1501", source, tmp_path / "tfds"), "train"
    )
    assert len(records) == 510 - len(named)
    for record in records:
        on_disk = (source / "bounding_box_train" / record["name"]).read_bytes()
        assert record["image_bytes"] == on_disk
    metadata = tmp_path / "tfds" / "market1501" / "1.0.0" / "metadata.json"
    assert any("train has" in text for text in json.loads(metadata.read_text())["differences"])
