"""Measures the share of channels that are zero everywhere in the last maps of a trained model.

    python -m benchmarks.zero_channels runs/market --dataset market1501 --data-dir data

Activation balanced pooling counts a channel in the row of its first maximum, which is row 0 for a
channel that is zero everywhere. The images are queries, evenly spaced.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from data_prep import prepare_dataset
from rmgl_jax.data.normalization import normalize
from rmgl_jax.data.store import decode_split
from rmgl_jax.export.model_file import load_model
from rmgl_jax.models.rmgl import RMGL


@dataclass(frozen=True)
class Options:
    """Options of the measurement."""

    model: Annotated[Path, tyro.conf.Positional]
    """Run directory or model file."""
    dataset: str = "market1501"
    """Name of a prepared dataset."""
    data_dir: Path | None = None
    """Directory of prepared datasets."""
    images: int = 400
    """Number of images."""
    batch_size: int = 50
    """Images computed at once; divides `images`."""


def main(options: Options) -> None:
    """Prints the share for each map."""
    trained = load_model(options.model)
    config = trained.config.model
    builder = prepare_dataset(options.dataset, data_dir=options.data_dir)
    query = decode_split(builder, "query", config.image_size)
    rows = np.linspace(0, len(query.pids) - 1, options.images).astype(int)

    @jax.jit
    def zero_channels(variables, images):
        apply = partial(RMGL(config).apply, train=False, method="feature_maps")
        maps = apply(variables, normalize(images))
        return {name: (x == 0).all(axis=(1, 2)).mean(axis=1) for name, x in maps.items()}

    found: dict[str, list[np.ndarray]] = {}
    for part in np.split(rows, len(rows) // options.batch_size):
        images = np.stack([query.images[row] for row in part])
        for name, shares in zero_channels(trained.variables, images).items():
            found.setdefault(name, []).append(100 * np.asarray(shares))
    print(f"{len(rows)} queries of {query.dataset} {query.version}, step {trained.step}")
    for name, parts in found.items():
        shares = np.concatenate(parts)
        print(
            f"{name}: {shares.mean():.2f} % of the channels are zero everywhere "
            f"({shares.min():.2f} to {shares.max():.2f} % in an image)"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
