"""`python -m data_prep.synthetic.contact_sheet OUT.png`: ten identities seen by six cameras.

Each column is a person, each row a camera. Of ten persons the first three are twins, and so are
the sixth and the seventh: they differ only in prints, stripes and shoes.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.command import report_errors
from data_prep.files import expand, replacing
from data_prep.synthetic.camera import CAMERAS
from data_prep.synthetic.layout import Shot
from data_prep.synthetic.render import render_image


def contact_sheet(first_pid: int, seed: int = 0, persons: int = 10, gap: int = 2) -> Image.Image:
    """Renders `persons` identities from `first_pid` on (columns) by every camera (rows)."""
    rows = []
    for camera in CAMERAS:
        shots = (
            Shot("query", pid, camera.number, 0, pid)
            for pid in range(first_pid, first_pid + persons)
        )
        tiles = [render_image(seed, shot) for shot in shots]
        rows.append(np.concatenate([_frame(tile, gap) for tile in tiles], axis=1))
    return Image.fromarray(np.concatenate(rows, axis=0))


def _frame(tile: np.ndarray, gap: int) -> np.ndarray:
    return np.pad(tile, ((0, gap), (0, gap), (0, 0)), constant_values=255)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the benchmark")
    parser.add_argument("--first-pid", type=int, default=1, help="identity of the first column")
    arguments = parser.parse_args()
    with report_errors("contact sheet"):
        sheet = contact_sheet(arguments.first_pid, arguments.seed)
        # 256 colors: a third of the size, with hardly a visible difference.
        sheet = sheet.quantize(256, kmeans=1, dither=Image.Dither.FLOYDSTEINBERG)
        with replacing(expand(arguments.out)) as unfinished:
            sheet.save(unfinished, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
