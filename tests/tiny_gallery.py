"""Images with metadata, and a model that embeds them, for tests of galleries."""

from dataclasses import replace
from pathlib import Path

from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.export.weights import to_arrays, weights_digest
from rmgl_jax.gallery.crops import Crop
from tests.tiny_model import random_variables
from tests.tiny_trees import image_bytes
from tests.trained_run import run_config


def make_model(seed: int = 0, embed_dim: int = 8) -> TrainedModel:
    """A model with random weights."""
    config = run_config("market1501")
    config = replace(config, model=replace(config.model, embed_dim=embed_dim))
    variables = random_variables(config.model, seed)
    digest = weights_digest(to_arrays(variables))
    return TrainedModel(config, variables, step=1, digest=digest)


MODEL = make_model()


def write_crops(directory: Path) -> list[Crop]:
    """30 images of 3 cameras, of which every second has a time and every third a label."""
    crops = []
    for number in range(30):
        path = directory / f"{number:02}.png"
        path.write_bytes(image_bytes(number, "PNG"))
        crops.append(
            Crop(
                path,
                camera=str(number % 3),
                time=float(number) if number % 2 else None,
                labels=("third",) if number % 3 == 0 else (),
            )
        )
    return crops
