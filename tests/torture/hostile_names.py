"""Hostile names of files and directories, and hostile lists of files."""

import os
import random
import shutil
from pathlib import Path

from tests.torture import processes
from tests.torture.attempt import ODD_WORDS, Attempt

_TEMPLATES = (
    *("{w}.jpg", "0001_c1_{w}.jpg", "{w}_c1_0.jpg", "0001_c{w}_0.jpg", "0001_c1s{w}_0.jpg"),
    *("-1_c1_{w}.jpg", "0001_c1_0.{w}", "0001_c1_0.jpg{w}", "0001_c1_0{w}.png"),
)
_NUMBERS = ("0", "1", "00", "-1", "-2", "2147483647", "2147483648", "9223372036854775808", "9" * 60)


def prepare_name(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """A dataset whose images have hostile names, in one of two layouts."""
    market = rng.random() < 0.5
    layout = ("bounding_box_train", "query", "bounding_box_test") if market else ("train",)
    image = next((base / "source/train").glob("*.jpg"))
    for folder in layout:
        (directory / "source" / folder).mkdir(parents=True)
        for name in ("0001_c1s1_000001_00.jpg", "0002_c2s1_000001_00.jpg"):
            shutil.copy(image, directory / "source" / folder / name)
    names = []
    for _ in range(rng.randint(1, 4)):
        folder = directory / "source" / rng.choice(layout)
        name = _name(rng)
        if rng.random() < 0.2 and not market:
            folder, name = folder / _name(rng)[:100], "0001_c1_0.jpg"
        try:
            folder.mkdir(exist_ok=True)
            shutil.copy(image, folder / name)
            names.append(repr(name if folder.name in layout else f"{folder.name}/{name}")[:80])
        except (OSError, ValueError):
            continue
    dataset = "market1501" if market else "folder"
    words = ["prepare", dataset, "--source", "source", "--data-dir", "data"]
    words += ["--allow-partial"] if market else ["--name", "hostile"]
    description = f"{dataset}: {', '.join(names) or 'no name that the system takes'}"
    return Attempt(description, processes.command, ("rmgl_jax", *words))


def _name(rng: random.Random) -> str:
    word = rng.choice((rng.choice(ODD_WORDS), rng.choice(_NUMBERS)))
    name = rng.choice(_TEMPLATES).format(w=word).replace("/", rng.choice("_:\\"))
    if rng.random() < 0.2:
        name = "".join(rng.sample(name, len(name)))[:120]
    return name if name not in ("", ".", "..") else "..jpg"


def prepare_list(base: Path, directory: Path, rng: random.Random) -> Attempt:
    """MSMT17 with a hostile line, or a hostile list file."""
    root = directory / "source"
    image = next((base / "source/train").glob("*.jpg"))
    shutil.copy(image, directory / "x_y_01_outside.jpg")
    for split in ("train", "test"):
        (root / split / "0000").mkdir(parents=True)
        for camera in ("01", "02"):
            shutil.copy(image, root / split / "0000" / f"0000_000_{camera}_0.jpg")
    for name in ("train", "val", "query", "gallery"):
        lines = [f"0000/0000_000_{camera}_0.jpg 0" for camera in ("01", "02")]
        (root / f"list_{name}.txt").write_text("\n".join(lines) + "\n")
    path = root / f"list_{rng.choice(('train', 'query', 'gallery'))}.txt"
    good = path.read_text()
    kind = rng.choice(("line", "line", "line", "outside", "outside", "pid", "file", "bytes"))
    outside = False
    if kind == "outside":
        # Every one of these leaves the folder of the images.
        outside = True
        names = (
            *("../../x_y_01_outside.jpg", str(directory / "x_y_01_outside.jpg")),
            *("0000/../../../x_y_01_outside.jpg", "./.././../x_y_01_outside.jpg"),
        )
        line = f"{rng.choice(names)} 0"
        path.write_text(good + line + "\n")
    elif kind == "pid":
        line = f"0000/0000_000_01_0.jpg {rng.choice((*_NUMBERS, *ODD_WORDS))}"
        path.write_text(good + line + "\n", errors="surrogateescape")
    elif kind == "line":
        word = rng.choice((*ODD_WORDS, *_NUMBERS))
        forms = ("{w}", "{w} 0", "0000/0000_000_{w}_0.jpg 0", "0000/{w}_000_01_0.jpg 0", "{w} {w}")
        line = rng.choice(forms).format(w=word)
        path.write_text(good + line + "\n", errors="surrogateescape")
    elif kind == "bytes":
        content = rng.choice((rng.randbytes(300), b"\xff\xfe" + good.encode("utf-16"), b"\0" * 99))
        line = f"{len(content)} bytes"
        path.write_bytes(content)
    else:
        line = rng.choice(("empty", "FIFO", "/dev/zero", "a directory", "a link to itself", "CRLF"))
        path.unlink()
        if line == "empty":
            path.touch()
        elif line == "FIFO":
            os.mkfifo(path)
        elif line == "a directory":
            path.mkdir()
        elif line == "CRLF":
            path.write_bytes(good.replace("\n", "\r\n").encode())
        else:
            path.symlink_to(line if line.startswith("/") else path.name)
    words = ("prepare", "msmt17", "--source", "source", "--data-dir", "data", "--allow-partial")
    description = f"{kind}: {line!r}"[:120]
    return Attempt(description, processes.command, ("rmgl_jax", *words), must_refuse=outside)
