"""Crops found in files, directories, globs and CSV files, and their pixels."""

import shutil
import struct
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import InputError, MissingFileError
from data_prep.images import image_problem, open_image, to_rgb
from rmgl_jax.gallery.crop_sources import find_crops
from rmgl_jax.gallery.crops import Crop, read_crop
from rmgl_jax.gallery.entries import Filters
from rmgl_jax.gallery.identify import identify, is_wide
from rmgl_jax.gallery.times import parse_time


def save(path, seed=0, size=(24, 12), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_csv(directory, text):
    path = directory / "crops.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("number", [int, float, np.float32, np.int64])
def test_crop_rounds_edges_to_whole_pixels(number, tmp_path):
    path = save(tmp_path / "a.png")
    crop = Crop(path, tuple(map(number, (1, 2, 9, 20))))
    assert crop == Crop(path, (1, 2, 9, 20))
    assert {type(edge) for edge in crop.box} == {int}
    assert identify(crop) == identify(Crop(path, (1, 2, 9, 20)))
    assert Crop(path, np.array([1.4, 2, 9, 20.6])).box == (1, 2, 9, 21)


@pytest.mark.parametrize("box", [(1, 2, 3), (1, 2, 3, 4, 5), (1, 2, 3, np.nan), (0, 0, np.inf, 9)])
def test_crop_refuses_boxes_other_than_four_finite_numbers(box, tmp_path):
    with pytest.raises(InputError, match=r"four numbers \(left, top, right, bottom\), got \("):
        Crop(tmp_path / "a.png", box)


def test_crop_takes_paths_as_text(tmp_path):
    path = save(tmp_path / "a.png")
    assert Crop(str(path)) == Crop(path)
    assert read_crop(Crop(str(path))).size == (12, 24)


def test_crop_keeps_numbers_of_numpy_as_those_of_python():
    crop = Crop("a.png", pid=np.int64(3), time=np.float32(10), labels=["red"])
    assert (type(crop.pid), type(crop.time), crop.labels) == (int, float, ("red",))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", "entrance", "labels must be texts.*'entrance'"),
        ("labels", (1,), r"labels must be texts.*\(1,\)"),
        ("camera", 3, "camera must be text, got 3"),
        ("pid", "3", "pid must be a whole number.*'3'"),
        ("time", datetime(2026, 5, 1, tzinfo=UTC), r"seconds since 1970.*datetime\.datetime"),
    ],
)
def test_crop_refuses_fields_of_other_types(field, value, message):
    with pytest.raises(InputError, match=message):
        Crop("a.png", **{field: value})


@pytest.mark.parametrize("field", ["cameras", "not_cameras", "labels"])
def test_filters_refuse_one_text_for_several(field):
    with pytest.raises(InputError, match=f"{field} must be texts.*'12'"):
        Filters(**{field: "12"})
    with pytest.raises(InputError, match=f"{field} must be texts"):
        Filters(**{field: (12,)})


def test_find_crops_searches_directories_at_any_depth_in_order(tmp_path):
    names = ["a.png", "a/b.jpg", "a/c/d.TIFF", "b.gif", "c.webp", "d.bmp", "e.ppm"]
    for name in reversed(names):
        save(tmp_path / name)
    for name in ("notes.txt", ".hidden.png", "._a.png", "film.mpg", "page.eps"):
        (tmp_path / name).write_text("no image")
    found = list(find_crops([str(tmp_path)]))
    assert [crop.path for crop in found] == sorted(tmp_path / name for name in names)
    assert {crop.camera for crop in found} == {""}
    assert read_crop(found[1]).size == (12, 24)


def test_find_crops_follows_linked_directories_once(tmp_path):
    save(tmp_path / "elsewhere" / "b.png")
    save(tmp_path / "a" / "c.png")
    (tmp_path / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "linked_again").symlink_to(tmp_path / "elsewhere")
    found = [crop.path for crop in find_crops([tmp_path / "a"])]
    assert found == [tmp_path / "a" / "c.png", tmp_path / "a" / "linked" / "b.png"]


@pytest.mark.parametrize(("target", "error"), [("a.png", InputError), ("none", MissingFileError)])
def test_link_to_itself_or_to_nothing_is_found_and_named_when_it_is_read(target, error, tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / target)
    for source in (tmp_path, tmp_path / "*"):
        (crop,) = find_crops([source])
        with pytest.raises(error, match=r"a\.png"):
            read_crop(crop)


def test_find_crops_passes_over_directories_that_vanish(tmp_path):
    for name in ("a/a.png", "b/b.png", "c/c.png"):
        save(tmp_path / name)
    found = find_crops([tmp_path])
    assert next(found) == Crop(tmp_path / "a" / "a.png")
    shutil.rmtree(tmp_path / "b")
    assert list(found) == [Crop(tmp_path / "c" / "c.png")]


def test_find_crops_takes_files_and_globs(tmp_path):
    for name in ("a.png", "b/0007_c3s1_000001_00.png", "b/c/[1].png"):
        save(tmp_path / name)
    (tmp_path / "b" / "c" / "notes.txt").write_text("no image")
    (tmp_path / "photo").write_bytes((tmp_path / "a.png").read_bytes())
    assert list(find_crops([tmp_path / "photo"])) == [Crop(tmp_path / "photo")]
    of_person = Crop(tmp_path / "b" / "0007_c3s1_000001_00.png", pid=7, camera="3")
    assert list(find_crops([tmp_path / "b" / "*"])) == [of_person]
    deep = list(find_crops([f"{tmp_path}/b/**/*", tmp_path / "a.png"]))
    assert deep == [of_person, Crop(tmp_path / "b" / "c" / "[1].png"), Crop(tmp_path / "a.png")]
    # A file whose name looks like a glob is that file.
    assert list(find_crops([tmp_path / "b" / "c" / "[1].png"])) == [deep[1]]


def test_find_crops_reads_csv(tmp_path):
    save(tmp_path / "frames" / "0002_c1s1_000451_03.png")
    path = write_csv(
        tmp_path,
        "\ufeffpath,left,top,right,bottom,pid,camid,time,labels\n"
        "frames/0002_c1s1_000451_03.png,1.4,2,9,20.6,5,door,2024-03-01T12:00:00+01:00,red; bag;\n"
        "\n"
        "frames/0002_c1s1_000451_03.png,,,,,,,1709290800.5,\n"
        f'"{tmp_path}/frames/0002_c1s1_000451_03.png",,,,,,,2024-03-01T11:00:00Z,\n',
    )
    image = tmp_path / "frames" / "0002_c1s1_000451_03.png"
    assert list(find_crops([path])) == [
        Crop(image, (1, 2, 9, 21), 5, "door", 1709290800.0, ("red", "bag")),
        Crop(image, None, 2, "1", 1709290800.5),
        Crop(image, None, 2, "1", 1709290800.0),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: .*path is missing"),
        ("path\n", "no crops"),
        ("image\na.png\n", "line 1: .*image is unknown; path is missing"),
        ("path,left,top\na.png,1,2\n", "line 1: .*right is missing; bottom is missing"),
        ("path,path\na.png,a.png\n", "line 1: .*path is there twice"),
        ("path,pid\na.png,1\na.png,x\n", "line 3: .*'x'"),
        ("path,pid\na.png,1,2\n", "line 2"),
        ("path,pid\na.png\n", "line 2"),
        ("path,pid\n,1\n", "line 2 has no path"),
        ("path,time\na.png,yesterday\n", "line 2: .*yesterday"),
        ("path,time\na.png,nan\n", "line 2: .*nan"),
        ("path,time\na.png,1714567890123\n", "line 2: .*1714567890123"),
        ("path,time\na.png,20261301\n", "line 2: "),
        (f"path,pid\na.png,{2**63}\n", f"line 2: .*{2**63}"),
        ("path,left,top,right,bottom\na.png,0,0,3e9,9\n", "line 2: .*3000000000"),
        ("path,left,top,right,bottom\na.png,5,0,5,9\n", r"line 2: .*\[5, 0, 5, 9\]"),
        ("path,left,top,right,bottom\na.png,5,,6,9\n", "line 2: "),
        ("path,left,top,right,bottom\na.png,0,0,inf,9\n", "line 2: "),
        ('path\n"a.png\n', "not a CSV file"),
    ],
)
def test_find_crops_names_line_of_bad_csv(text, message, tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(InputError, match=rf"crops\.csv.*{message}"):
        list(find_crops([write_csv(tmp_path, text)]))


def test_names_with_more_digits_than_a_pid_are_names(tmp_path):
    path = save(tmp_path / "20260501123045123456_c1.png")
    assert list(find_crops([tmp_path])) == [Crop(path)]


def test_time_of_eight_digits_is_a_date():
    assert parse_time("20260501") == parse_time("2026-05-01") == 1777593600
    assert parse_time("1777593600") == 1777593600
    assert [parse_time(text) for text in ("10", "12.5", "-3", "100000")] == [10, 12.5, -3, 100_000]
    assert parse_time("") is None


@pytest.mark.parametrize("text", ["2026", "202605", "202605010800", "20260501080000"])
def test_digits_that_look_like_a_date_are_refused(text):
    with pytest.raises(InputError, match=rf"{text} looks like a date; .* 2026-05-01T08:00"):
        parse_time(text)


@pytest.mark.parametrize("text", ["1_0", "1e9", "inf", " ", "\u0661"])
def test_seconds_are_plain_decimals(text):
    with pytest.raises(ValueError, match="isoformat"):
        parse_time(text)


def test_find_crops_names_what_is_missing(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, name in (("none.png", r"none\.png"), ("empty", "empty"), ("*.png", r"\*\.png")):
        with pytest.raises(MissingFileError, match=name):
            list(find_crops([tmp_path / source]))
    missing = write_csv(tmp_path, "path\nnone.png\n")
    with pytest.raises(MissingFileError, match=r"crops\.csv, line 2: .*none\.png"):
        list(find_crops([missing]))
    assert list(find_crops([missing], missing_ok=True)) == [Crop(tmp_path / "none.png")]


def test_read_crop_cuts_box_of_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by 90 degrees.
    path = save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(read_crop(Crop(path)))
    np.testing.assert_array_equal(upright, np.rot90(np.asarray(Image.open(path)), -1))
    assert upright.shape == (12, 24, 3)
    np.testing.assert_array_equal(read_crop(Crop(path, (2, 3, 9, 10))), upright[3:10, 2:9])
    np.testing.assert_array_equal(read_crop(Crop(path, (-5, -5, 4, 99))), upright[:, :4])
    for outside in ((24, 0, 30, 5), (-9, 0, 0, 5), (0, 12, 5, 20)):
        with pytest.raises(InputError, match=rf"a\.png is 24 x 12 .*{outside[0]}"):
            read_crop(Crop(path, outside))


@pytest.mark.parametrize("most", [1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["plain", "binary"])
def test_read_crop_keeps_tones_of_16_bit_pgm(kind, most, tmp_path):
    values = np.linspace(0, most, 48).round().astype(int).reshape(8, 6)
    header = f"P{2 if kind == 'plain' else 5} 6 8 {most}\n".encode()
    body = " ".join(map(str, values.flat)).encode() if kind == "plain" else values.astype(">u2")
    (tmp_path / "a.pgm").write_bytes(header + bytes(body))
    image = read_crop(Crop(tmp_path / "a.pgm"))
    assert image.mode == "L"
    np.testing.assert_allclose(np.asarray(image), values * 255 / most, atol=1)
    # The evaluation sees the same pixels.
    with open_image((tmp_path / "a.pgm").read_bytes(), ["PPM"]) as opened:
        np.testing.assert_array_equal(to_rgb(opened), image.convert("RGB"))


@pytest.mark.parametrize("kind", ["png", "webp"])
def test_images_with_damaged_exif_are_read_unturned(kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    path = tmp_path / f"a.{kind}"
    Image.fromarray(pixels).save(path, exif=b"Exif\0\0garbagegarbage", lossless=True)
    np.testing.assert_array_equal(read_crop(Crop(path)), pixels)
    assert image_problem(path) is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("width", [4, b"abc\0"], ids=["valid", "damaged"])
def test_images_are_turned_by_their_orientation_alone(orientation, width, tmp_path):
    """Another field may be damaged: a width of four letters is no number."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    kind, value = (4, struct.pack("<I", width)) if width == 4 else (2, width)
    fields = struct.pack("<HHI", 0x100, kind, 1 if width == 4 else 4) + value
    fields += struct.pack("<HHIHH", 0x112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + fields + bytes(4)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, exif=exif)
    rows = pixels[:, ::-1] if orientation in (2, 3, 7, 8) else pixels
    rows = rows[::-1] if orientation in (3, 4, 6, 7) else rows
    expected = rows.swapaxes(0, 1) if orientation >= 5 else rows
    found = read_crop(Crop(path))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(to_rgb(found), expected)  # not turned twice
    assert image_problem(path) is None


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_is_wide_sees_the_upright_image(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{kind}", size=(12, 24), exif=exif)
    assert is_wide(Crop(path)) == (orientation in (1, 3))
    assert is_wide(Crop(path)) == (read_crop(Crop(path)).width == 24)


def test_read_crop_names_files_that_cannot_be_read(tmp_path, monkeypatch):
    whole = save(tmp_path / "a.png")
    content = whole.read_bytes()
    for name, damaged in (
        ("cut.png", content[:200]),
        ("text.png", b"text"),
        ("empty.png", b""),
        ("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
    ):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=name):
            read_crop(Crop(tmp_path / name))
    with pytest.raises(MissingFileError, match="none"):
        read_crop(Crop(tmp_path / "none"))
    with pytest.raises(InputError, match=tmp_path.name):
        read_crop(Crop(tmp_path))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(InputError, match=r"a\.png"):
        read_crop(Crop(whole))
