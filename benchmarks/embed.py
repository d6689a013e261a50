"""Measures the throughput of decoding and embedding a gallery.

    python -m benchmarks.embed                                  # thin network at 96x48
    python -m benchmarks.embed --preset gpu --batch-size 256    # ResNet-50 at 384x128, bfloat16

The gallery consists of rendered JPEGs at Market-1501's resolution, repeated. Decoding is the first
call of `data.store.decode_split`, which includes resizing; later runs reuse its file. Embedding is
`evaluation.embedding.embed` from the decoded file, of image and mirrored image, after one batch
that compiles. Prints medians over the rounds. `--passes 1` leaves out the mirrored images.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report
from data_prep import prepare_dataset
from data_prep.synthetic.render import render
from rmgl_jax.cpu import keep_freed_memory
from rmgl_jax.data.store import decode_split
from rmgl_jax.evaluation.embedding import embed
from rmgl_jax.experiment import presets
from rmgl_jax.models.rmgl import RMGL

CONFIGS = {
    "small": presets.small("synthetic/demo", epochs=3),
    "paper": presets.paper("synthetic/demo"),
    "gpu": presets.gpu("synthetic/demo"),
}


def gallery_builder(directory, images):
    """Prepares a dataset whose gallery is rendered images, repeated as new identities."""
    source = render(Path(directory) / "images", "tiny", seed=0)
    gallery = source / "bounding_box_test"
    files = [path for path in sorted(gallery.glob("*.jpg")) if not path.name.startswith("-1")]
    for number in range(images - len(files)):
        original = files[number % len(files)]
        _, rest = original.name.split("_", 1)
        (gallery / f"{10000 + number:07d}_{rest}").hardlink_to(original)
    return prepare_dataset("folder/gallery", source, Path(directory) / "tfds")


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="small", choices=CONFIGS)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--passes", type=int, default=2, choices=(1, 2))
    parser.add_argument("--rounds", type=int, default=3)
    add_json_option(parser)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the commands do
    model = CONFIGS[arguments.preset].model
    create = jax.jit(lambda key, images: RMGL(model).init(key, images, train=False))
    variables = create(jax.random.key(0), np.zeros((1, *model.image_size, 3), np.float32))
    options = {"batch_size": arguments.batch_size, "flip": arguments.passes == 2}
    decoding, embedding = [], []
    with tempfile.TemporaryDirectory() as directory:
        builder = gallery_builder(directory, arguments.images)
        for number in range(arguments.rounds):
            with tempfile.TemporaryDirectory(dir=directory) as store:
                start = time.perf_counter()
                images = decode_split(builder, "gallery", model.image_size, store).images
                decoding.append(time.perf_counter() - start)
                if not number:
                    embed(model, variables, images[: arguments.batch_size], **options)
                start = time.perf_counter()
                embed(model, variables, images, **options)
                embedding.append(time.perf_counter() - start)
    count, size = len(images), "x".join(map(str, model.image_size))
    table = Table(
        title=f"{arguments.preset}: {count:,} images at {size}, {arguments.passes} passes "
        f"an image, {jax.device_count()} x {jax.devices()[0].device_kind}"
    )
    for column in ("", "seconds", "images/s"):
        table.add_column(column, justify="right" if column else "left")
    both = np.add(decoding, embedding)
    rows = {"decoding": decoding, "embedding": embedding, "decoding and embedding": both}
    figures = {}
    for name, seconds in rows.items():
        median = float(np.median(seconds))
        figures[name] = {"s": median, "images/s": count / median}
        table.add_row(name, f"{median:.1f}", f"{count / median:,.0f}")
    Console(width=100).print(table)
    write_report("embed", arguments, figures)


if __name__ == "__main__":
    main()
