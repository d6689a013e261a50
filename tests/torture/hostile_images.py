"""Hostile images: bombs, damaged and mislabeled files, odd modes, and files that are none."""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.torture import processes
from tests.torture.attempt import WRONG, Attempt

Maker = Callable[[random.Random], bytes]
_SIZE = (40, 20)
_LEVEL = 90
"""Brightness of the images whose content is checked, 0 to 255."""


def prepare_image(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """A dataset with one hostile image, to prepare."""
    kind = rng.choice(list(MAKERS))
    suffix = rng.choice(("jpg", "png", "bmp", "webp", "JPEG"))
    train = directory / "source" / "train"
    train.mkdir(parents=True)
    for number in range(2):
        (train / f"000{number + 1}_c1_0.png").write_bytes(encode(_plain("RGB"), "PNG"))
    path = train / f"0003_c1_0.{suffix}"
    MAKERS[kind](path, rng)
    checked = kind in CHECKED
    return Attempt(f"{kind} as .{suffix}", _prepare_and_check, (path.name, checked))


def embed_image(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """A hostile image to embed, by the real command in some cases."""
    kind = rng.choice(list(MAKERS))
    (directory / "crops").mkdir()
    path = directory / "crops" / "hostile.png"
    MAKERS[kind](path, rng)
    named = rng.choice(("crops", "crops/hostile.png"))
    words = ("embed", str(base / "run"), named, "--output", "out.npz", "--batch-size", "16")
    real = rng.random() < 0.2
    run = processes.real_command if real else processes.command
    return Attempt(f"{kind}{' (new process)' if real else ''}", run, ("rmgl_jax", *words))


def _prepare_and_check(name: str, checked: bool) -> None:
    """Prepares the dataset, and compares the brightness of the hostile image if it is known."""
    words = ("--source", "source", "--name", "hostile", "--data-dir", "data")
    processes.command("rmgl_jax", "prepare", "folder", *words)
    if not checked:
        return
    from data_prep import find_prepared, read_records
    from rmgl_jax.data.images import decode

    builder = find_prepared("folder/hostile", "data")
    for record in read_records(builder, "train"):
        level = decode(record["image_bytes"], (32, 16)).mean()
        if record["name"] == name and abs(level - _LEVEL) > 25:
            print(f"{WRONG}: brightness {level:.0f} instead of {_LEVEL}")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _plain(mode: str, level: int = _LEVEL) -> Image.Image:
    return Image.new("RGB", _SIZE, (level,) * 3).convert(mode)


def _png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A PNG file with any header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def _deep_png(channels: int) -> bytes:
    """A PNG of 16 bits a channel, gray (1) or RGB (3)."""
    row = b"\0" + struct.pack(">H", _LEVEL * 257) * channels * 16
    return _png(16, 32, 16, 0 if channels == 1 else 2, row * 32)


def _cut(path: Path, rng: random.Random) -> None:
    noise = np.random.default_rng(rng.randrange(1000)).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), rng.choice(("PNG", "JPEG", "WEBP", "BMP")))
    path.write_bytes(content[: rng.randrange(len(content))])


def _flipped(path: Path, rng: random.Random) -> None:
    content = bytearray(encode(_plain("RGB"), rng.choice(("PNG", "JPEG", "WEBP", "BMP"))))
    for _ in range(rng.randint(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(bytes(content))


def _huge_header(path: Path, rng: random.Random) -> None:
    side = rng.choice((2**31 - 1, 2**16, 10**5, 30000))
    path.write_bytes(_png(side, rng.choice((1, side)), 8, 2, b"\0" * 100))


def _bomb(path: Path, rng: random.Random) -> None:
    # 400 million pixels in half a megabyte.
    path.write_bytes(_png(20000, 20000, 1, 0, (b"\0" * 2501) * 20000))


def _rotated(path: Path, rng: random.Random) -> None:
    exif = Image.Exif()
    exif[0x0112] = rng.choice((3, 6, 8, 99, -1 & 0xFFFF))
    path.write_bytes(encode(_plain("RGB"), "JPEG", exif=exif.tobytes()))


def _many_frames(path: Path, rng: random.Random) -> None:
    frames = [_plain("RGB", level) for level in (_LEVEL, 0, 255)]
    kind = rng.choice(("PNG", "WEBP"))
    stream = io.BytesIO()
    frames[0].save(stream, kind, save_all=True, append_images=frames[1:])
    path.write_bytes(stream.getvalue())


def _text_chunk(path: Path, rng: random.Random) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "x" * rng.choice((10, 10**6, 3 * 10**7)), zip=True)
    path.write_bytes(encode(_plain("RGB"), "PNG", pnginfo=info))


def _bytes(make: Maker) -> Callable[[Path, random.Random], None]:
    return lambda path, rng: path.write_bytes(make(rng)) and None


MAKERS: dict[str, Callable[[Path, random.Random], None]] = {
    "cut image": _cut,
    "image with changed bytes": _flipped,
    "huge dimensions": _huge_header,
    "decompression bomb": _bomb,
    "text chunk": _text_chunk,
    "odd orientation": _rotated,
    "several frames": _many_frames,
    "empty file": _bytes(lambda rng: b""),
    "noise": _bytes(lambda rng: rng.randbytes(rng.choice((1, 10, 1000, 10**6)))),
    "zeros": _bytes(lambda rng: bytes(10**6)),
    "GIF": _bytes(lambda rng: encode(_plain("P"), "GIF")),
    "TIFF": _bytes(lambda rng: encode(_plain("RGB"), "TIFF")),
    "EPS": _bytes(lambda rng: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    "SVG": _bytes(lambda rng: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "zero width": _bytes(lambda rng: _png(0, 32, 8, 2, b"\0" * 32)),
    "zero height": _bytes(lambda rng: _png(32, 0, 8, 2, b"")),
    "one pixel": _bytes(lambda rng: encode(Image.new("RGB", (1, 1)), "PNG")),
    "one row of 60,000": _bytes(lambda rng: encode(Image.new("RGB", (60000, 1)), "PNG")),
    "gray of 16 bits": _bytes(lambda rng: _deep_png(1)),
    "RGB of 16 bits": _bytes(lambda rng: _deep_png(3)),
    "CMYK": _bytes(lambda rng: encode(_plain("CMYK"), "JPEG")),
    "palette": _bytes(lambda rng: encode(_plain("P"), "PNG")),
    "one bit": _bytes(lambda rng: encode(_plain("1"), "PNG")),
    "gray with alpha": _bytes(lambda rng: encode(_plain("LA"), "PNG")),
    "transparent": _bytes(
        lambda rng: encode(Image.new("RGBA", _SIZE, (_LEVEL,) * 3 + (0,)), "PNG")
    ),
    "FIFO": lambda path, rng: os.mkfifo(path),
    "link to /dev/zero": lambda path, rng: path.symlink_to("/dev/zero"),
    "link to /dev/null": lambda path, rng: path.symlink_to("/dev/null"),
    "link to itself": lambda path, rng: path.symlink_to(path.name),
    "broken link": lambda path, rng: path.symlink_to("nothing"),
    "link to a directory": lambda path, rng: path.symlink_to("."),
    "directory": lambda path, rng: path.mkdir(),
    "sparse file": lambda path, rng: _sparse(path),
}
CHECKED = {"gray of 16 bits", "RGB of 16 bits", "CMYK", "palette"}
"""Makers of images of known brightness."""


def _sparse(path: Path) -> None:
    path.write_bytes(encode(_plain("RGB"), "PNG"))
    os.truncate(path, 1 << 40)
