"""Evaluates raw pixels, color histograms and random features on the synthetic benchmark.

    python -m benchmarks.synthetic_baselines [--preset demo] [--seed 0]

Renders the benchmark to a temporary directory and prints mAP and rank-1 of each.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.names import parse_market_name
from data_prep.synthetic.layout import PRESETS
from data_prep.synthetic.render import render
from rmgl_jax.evaluation.baselines import color_histogram_embedding, pixel_embedding
from rmgl_jax.evaluation.ranking import rank_metrics


def read(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads images uint8 [M, H, W, 3], pids and camids [M] of a folder in Market-1501's layout."""
    paths = sorted(folder.glob("*.jpg"))
    labels = [parse_market_name(path.name) for path in paths]
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    pids, camids = np.array([(label.pid, label.camera) for label in labels]).T
    return images, pids, camids


def random_embedding(images: np.ndarray) -> np.ndarray:
    """Returns random features [M, 256], which are independent of the images."""
    return np.random.default_rng(len(images)).normal(size=(len(images), 256)).astype(np.float32)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="demo", choices=PRESETS)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        out = render(Path(directory) / "synthetic", arguments.preset, arguments.seed)
        print(f"rendered {PRESETS[arguments.preset].total} images", end=" ")
        print(f"in {time.perf_counter() - start:.1f} s")
        query_images, *query = read(out / "query")
        gallery_images, *gallery = read(out / "bounding_box_test")
    for embed in (random_embedding, pixel_embedding, color_histogram_embedding):
        distances = -embed(query_images) @ embed(gallery_images).T
        metrics = rank_metrics(distances, *query, *gallery)
        print(
            f"{embed.__name__:27s} mAP {100 * metrics.mean_ap:5.2f} step, "
            f"{100 * metrics.mean_ap_official:5.2f} official, rank-1 {100 * metrics.cmc[0]:5.2f}"
        )


if __name__ == "__main__":
    main()
