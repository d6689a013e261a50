"""Measures the input pipeline against the plain pipeline of a data loader.

    python -m benchmarks.input_pipeline [--rounds 5] [--size 384 128]

The images are those of the synthetic benchmark (JPEG, Market-1501's resolution), repeated so that
starting processes does not count. The plain pipeline does for every image in every epoch what the
workers of a data loader do: decode, resize, flip and RSA (crop, resize, paste) with Pillow, then
normalize with NumPy. It runs one process per core and sends nothing to a parent, which favors it.
Each round measures everything in turn, so that other load slows all alike. Prints the median and
the best of the rounds.
"""

import argparse
import io
import os
import platform
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report
from data_prep import open_prepared, prepare_dataset, read_records
from data_prep.synthetic.layout import PRESETS
from data_prep.synthetic.render import render

PERSONS, IMAGES = 12, 4
BATCH = PERSONS * IMAGES


def plain_image(encoded, size, rng):
    """Decodes and augments one image as a data loader's worker does; returns float32 [H, W, 3]."""
    height, width = size
    image = Image.open(io.BytesIO(encoded)).convert("RGB")
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    crop_ratio = rng.uniform(0.7, 1.0) if rng.random() < 0.5 else 1.0
    crop = round(crop_ratio * height)
    patch_height = min(height, round(rng.uniform(0.5, 1 / crop_ratio) * crop))
    patch_width = round(rng.uniform(0.5, 1.0) * width)
    top = rng.integers(height - crop + 1)
    patch = image.crop((0, top, width, top + crop))
    patch = patch.resize((patch_width, patch_height), Image.Resampling.BILINEAR)
    box = Image.new("RGB", (width, height), (127, 127, 127))
    left = int(rng.integers(width - patch_width + 1))
    box.paste(patch, (left, int(rng.integers(height - patch_height + 1))))
    pixels = np.asarray(box, np.float32) / 255
    return (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])


def plain_images(directory, size, rows):
    """Returns the seconds that one worker takes for some images, which are read beforehand."""
    records = read_records(open_prepared(directory), "train")
    encoded = [records[int(row)]["image_bytes"] for row in rows]
    rng = np.random.default_rng(int(rows[0]))
    start = time.perf_counter()
    for image_bytes in encoded:
        plain_image(image_bytes, size, rng)
    return time.perf_counter() - start


def repeated_set(directory, preset, copies):
    """Prepares a dataset of rendered images in which training images are repeated."""
    source = render(Path(directory) / "images", preset, seed=0)
    train = source / "bounding_box_train"
    for image in list(train.glob("*.jpg")):
        pid, rest = image.name.split("_", 1)
        for copy in range(1, copies):
            (train / f"{int(pid) + 10000 * copy:05d}_{rest}").hardlink_to(image)
    return prepare_dataset("folder/repeated", source, Path(directory) / "tfds")


def seconds(function):
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(builder, size, rounds):
    """Returns samples of every measurement, one for each round."""
    # Imported here, because the workers of the plain pipeline import this file and need no JAX.
    import jax

    from rmgl_jax.config import AugmentConfig
    from rmgl_jax.data.augment import augment
    from rmgl_jax.data.sampler import identity_batches
    from rmgl_jax.data.store import decode_split

    cores = len(os.sched_getaffinity(0))
    run = jax.jit(partial(augment, config=AugmentConfig()))
    rng = np.random.default_rng(0)
    samples = {}

    def add(name, value):
        samples.setdefault(name, []).append(value)

    with ProcessPoolExecutor(cores, mp_context=get_context("forkserver")) as pool:
        for number in range(rounds):
            for processes in (1, cores):
                with tempfile.TemporaryDirectory() as store:
                    took = seconds(
                        partial(decode_split, builder, "train", size, store, processes=processes)
                    )
                    split_size = len(decode_split(builder, "train", size, store))
                add(f"decode once, {processes} processes", split_size / took)
            split = decode_split(builder, "train", size)

            took = seconds(partial(identity_batches, split.labels, PERSONS, IMAGES, 0, number))
            batches = identity_batches(split.labels, PERSONS, IMAGES, 0, number)
            add("index", 1000 * took / len(batches))
            # Images are compared with their checksums when they are first read.
            for name in ("gather and check", "gather"):
                for batch in batches[:40]:
                    add(name, 1000 * seconds(partial(split.batch, batch)))

            images = split.batch(batches[0])
            if not number:
                run(jax.random.key(0), images).block_until_ready()
            for i in range(3):
                key = jax.random.key(i)
                took = seconds(lambda: run(key, images).block_until_ready())  # noqa: B023
                add("augment", BATCH / took)

            work = partial(plain_images, str(builder.data_dir), size)
            rows = rng.permutation(split_size)[: 100 * cores]
            add("plain, one process", 100 / pool.submit(work, rows[:100]).result())
            add("plain, all", sum(100 / took for took in pool.map(work, rows.reshape(cores, -1))))
    return cores, split_size, samples


def report(cores, split_size, size, samples):
    """Prints median and best of every measurement, and ratios."""
    table = Table(title=f"{split_size} images at {size[0]}x{size[1]}, {cores} cores")
    for column in ("", "median", "best", "unit"):
        table.add_column(column, justify="right" if column in ("median", "best") else "left")
    summary = {}
    for name, values in samples.items():
        is_time = name in ("index", "gather and check", "gather")
        summary[name] = np.array([np.median(values), (min if is_time else max)(values)])
        shown = [f"{x:.3f}" if is_time else f"{x:,.0f}" for x in summary[name]]
        table.add_row(name, *shown, "ms/batch" if is_time else "images/s")
    host = summary["index"] + summary["gather"]
    plain_host = 1000 * BATCH / summary["plain, all"]
    ours = 1 / (host / 1000 / BATCH + 1 / summary["augment"])
    table.add_section()
    first = summary["index"] + summary["gather and check"]
    table.add_row("host: index + gather", *(f"{x:.2f}" for x in host), "ms/batch")
    table.add_row("host, first epoch: with check", *(f"{x:.2f}" for x in first), "ms/batch")
    table.add_row("host: plain, all", *(f"{x:.1f}" for x in plain_host), "ms/batch")
    table.add_row("host: plain / ours", *(f"{x:.0f}" for x in plain_host / host), "times")
    table.add_row("all of ours on the CPU", *(f"{x:.0f}" for x in ours), "images/s")
    Console(width=100).print(table)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=2, default=(384, 128))
    parser.add_argument("--preset", default="demo", choices=PRESETS)
    parser.add_argument("--copies", type=int, default=6)
    add_json_option(parser)
    arguments = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as directory:
        builder = repeated_set(directory, arguments.preset, arguments.copies)
        size = tuple(arguments.size)
        cores, split_size, samples = measure(builder, size, arguments.rounds)
    report(cores, split_size, size, samples)
    figures = {
        name: {"median": float(np.median(values)), "least": min(values), "greatest": max(values)}
        for name, values in samples.items()
    }
    write_report("input_pipeline", arguments, figures)


if __name__ == "__main__":
    main()
