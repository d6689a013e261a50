"""Uploads that are hostile or broken are refused with a sentence, before they are decoded."""

import io
import os
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra `gallery` is not installed")
pytest.importorskip("python_multipart", reason="the extra `gallery` is not installed")

from starlette.testclient import TestClient

from data_prep.errors import InputError
from rmgl_jax.data.images import decode, to_pixels
from rmgl_jax.gallery.page import make_app
from rmgl_jax.gallery.uploads import MAX_BYTES, MAX_PIXELS, UploadStore, decode_upload, jpeg
from tests.gallery_stand_in import ColorGallery, color_entry

ADDRESS = "http://127.0.0.1:8000"
KINDS = ("JPEG", "PNG", "BMP", "WEBP")


def photograph(kind="JPEG", size=(60, 120), **options):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width, height, body=b""):
    """A PNG that promises some size and has almost no pixels."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + body
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def text_bomb():
    """A PNG with a text that grows by a factor of 1,000."""
    data = b"note\0\0" + zlib.compress(b"a" * 50_000_000)
    text = struct.pack(">I", len(data)) + b"zTXt" + data
    return png_header(10, 20, text + struct.pack(">I", zlib.crc32(b"zTXt" + data)))


def bmp_header(width, height):
    data = bytearray(photograph("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def jpeg_header(width, height):
    data = bytearray(photograph("JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def hostile_files():
    """About 200 files by name, none of which is a whole image of reasonable size."""
    random = np.random.default_rng(0)
    files = {
        "empty.jpg": b"",
        "zeros.png": bytes(1000),
        "page.html": b"<!DOCTYPE html><script>alert(1)</script>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "program.exe": b"MZ" + bytes(500),
        "archive.zip": b"PK\x03\x04" + bytes(500),
        "page.pdf": b"%PDF-1.7\n%%EOF",
        "print.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
        "list.xml": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>',
        "animation.gif": photograph("GIF"),
        "scan.tiff": photograph("TIFF"),
        "icon.ico": photograph("ICO"),
        "raster.ppm": photograph("PPM"),
        "text.png": text_bomb(),
        "png-bomb.png": png_header(50_000, 50_000),
        "png-large.png": png_header(5_000, 5_000),
        "png-huge.png": png_header(2**31 - 1, 2**31 - 1),
        "png-none.png": png_header(0, 0),
        "bmp-bomb.bmp": bmp_header(40_000, 40_000),
        "bmp-negative.bmp": bmp_header(-5, 10),
        "bmp-flipped.bmp": bmp_header(30_000, -30_000),
        "jpeg-bomb.jpg": jpeg_header(65_500, 65_500),
        "../../etc/passwd": b"root:x:0:0",
        "..\\..\\windows\\system.ini": b"[drivers]",
        '"><script>alert(1)</script>.jpg': b"<script>",
        "{{ 7 * 7 }}.png": b"{{ 7 * 7 }}",
        "\u202egpj.exe": b"MZ",
        "a" * 3000 + ".jpg": b"long",
        "%00.jpg": b"\x00",
        "CON": b"device",
    }
    for kind in KINDS:
        whole = photograph(kind)
        for number in range(20):
            part = len(whole) * (number + 1) // 22
            files[f"truncated-{number}.{kind}"] = whole[:part]
        for number in range(10):
            # Signature and noise: decoders differ in what they raise.
            noise = random.integers(0, 256, 4000, np.uint8).tobytes()
            files[f"noise-{number}.{kind}"] = whole[:24] + noise
    for number in range(55):
        files[f"random-{number}"] = random.bytes(int(random.integers(1, 3000)))
    return files


HOSTILE = hostile_files()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    directory = tmp_path_factory.mktemp("secret-directory")
    gallery = ColorGallery([color_entry(directory, (250, 10, 10), "a.png")])
    return TestClient(make_app(gallery), base_url=ADDRESS)


def sentence(response):
    (found,) = re.findall(r'role="alert">([^<]+)</p>', response.text)
    return found


def test_hostile_uploads_are_refused_with_a_sentence(client, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(HOSTILE) >= 200
    for name, data in HOSTILE.items():
        response = client.post("/search", files={"image": (name, data, "image/jpeg")})
        assert 400 <= response.status_code < 500, name
        assert sentence(response).endswith("."), name
        for leak in ("<script", "49", "passwd", "secret-directory", str(tmp_path), "Traceback"):
            assert leak not in response.text, (name, leak)
    # Nothing is written under any name.
    assert os.listdir(tmp_path) == []


def test_bombs_are_refused_before_they_are_decoded():
    tracemalloc.start()
    for name in ("png-bomb.png", "png-large.png", "bmp-bomb.bmp", "jpeg-bomb.jpg", "text.png"):
        with pytest.raises(InputError):
            decode_upload(HOSTILE[name], (64, 32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000
    # Sizes are in the sentence, and the limit itself is not over it.
    with pytest.raises(InputError, match=f"5000 x 5000 pixels.*{MAX_PIXELS:,}"):
        decode_upload(HOSTILE["png-large.png"], (64, 32))
    with pytest.raises(InputError, match=f"more than {MAX_PIXELS:,} pixels"):
        decode_upload(HOSTILE["png-bomb.png"], (64, 32))
    flat = io.BytesIO()
    Image.new("1", (4000, MAX_PIXELS // 4000)).save(flat, "PNG")
    assert decode_upload(flat.getvalue(), (64, 32)).image.size == (32, 64)


@pytest.mark.parametrize("declared", [True, False])
def test_bytes_are_limited_with_and_without_a_declared_length(client, declared):
    head = (
        b'--cut\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n"
    )

    def body(size):
        parts = [head, photograph(), bytes(size), b"\r\n--cut--\r\n"]
        return b"".join(parts) if declared else iter(parts)

    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    assert client.post("/search", content=body(1000), headers=headers).status_code == 200
    for size in (MAX_BYTES, MAX_BYTES + 1_000_000, 3 * MAX_BYTES):
        response = client.post("/search", content=body(size), headers=headers)
        assert response.status_code == 413
        assert f"{MAX_BYTES:,}" in sentence(response)


@pytest.mark.parametrize(
    "request_options",
    [
        {},
        {"data": {"image": "text"}},
        {"files": {"other": ("a.jpg", photograph(), "image/jpeg")}},
        {"files": [("image", ("a.jpg", photograph(), "image/jpeg"))] * 2},
        {"files": {"image": ("a.jpg", photograph())}, "data": {"labels": "x" * 5000}},
        {"files": {"image": ("a.jpg", photograph())}, "data": {"camera": ["a"] * 600}},
        {"content": photograph(), "headers": {"Content-Type": "image/jpeg"}},
        {"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}},
        {"content": b"{}", "headers": {"Content-Type": "multipart/form-data"}},
        {
            "content": b"image=1&image=2",
            "headers": {"Content-Type": "application/x-www-form-urlencoded"},
        },
    ],
)
def test_other_forms_are_refused_with_a_sentence(client, request_options):
    response = client.post("/search", **request_options)
    assert 400 <= response.status_code < 500
    assert sentence(response).endswith(".")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_whole_images_of_every_mode_are_decoded(kind, mode):
    image = Image.open(io.BytesIO(photograph("PNG")))
    if kind == "JPEG" and mode in ("P", "RGBA"):
        mode = "CMYK"
    buffer = io.BytesIO()
    image.convert(mode).save(buffer, kind)
    upload = decode_upload(buffer.getvalue(), (96, 32))
    assert (upload.image.mode, upload.image.size) == ("RGB", (32, 96))
    with Image.open(io.BytesIO(upload.preview)) as preview:
        assert (preview.format, preview.size) == ("JPEG", (60, 120))


def test_upload_of_16_bit_gray_is_equal_to_other_readers():
    """A plain conversion would clip most of it to white."""
    ramp = np.arange(120 * 60, dtype=np.uint16).reshape(120, 60) * 9
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    upload = decode_upload(buffer.getvalue(), (96, 32))
    np.testing.assert_array_equal(np.asarray(upload.image), decode(buffer.getvalue(), (96, 32)))
    with Image.open(io.BytesIO(jpeg(Image.fromarray(ramp)))) as small:
        assert np.asarray(small).mean() == pytest.approx((ramp >> 8).mean(), abs=2)


def test_decoded_upload_is_upright_and_equal_to_other_readers():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = photograph("JPEG", (120, 60), exif=exif)
    upload = decode_upload(data, (96, 32))
    expected = decode(data, (96, 32))
    np.testing.assert_array_equal(np.asarray(upload.image), expected)
    # Resizing to its own size, as the embedder does, changes nothing.
    np.testing.assert_array_equal(to_pixels(upload.image, (96, 32)), expected)


def test_jpeg_is_bounded_and_has_no_metadata():
    exif = Image.Exif()
    exif[0x010E] = "private note"
    image = Image.open(io.BytesIO(photograph("JPEG", (500, 1000), exif=exif, comment=b"private")))
    small = jpeg(image, (100, 100))
    assert b"private" not in small
    assert Image.open(io.BytesIO(small)).size == (50, 100)
    assert image.size == (500, 1000)


def test_upload_store_drops_the_oldest():
    store = UploadStore(limit=2)
    uploads = [decode_upload(photograph(size=(20, 40 + i)), (64, 32)) for i in range(3)]
    first, second = store.add(uploads[0]), store.add(uploads[1])
    assert store.get(first) is uploads[0]  # makes the second the oldest
    third = store.add(uploads[2])
    assert [store.get(name) for name in (first, second, third)] == [uploads[0], None, uploads[2]]
    assert store.get("") is None
    assert len({first, second, third}) == 3
