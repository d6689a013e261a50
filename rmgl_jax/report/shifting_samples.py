"""Random shifting augmentation, stage by stage (Fig. 6)."""

from dataclasses import dataclass, replace

import jax
import numpy as np

from rmgl_jax.config import RandomShiftingConfig
from rmgl_jax.data.placement import Box, place
from rmgl_jax.data.shifting import draw_shifting


@dataclass(frozen=True, eq=False)
class ShiftingSample:
    """One image on its way."""

    crop: Box
    """What is cut out, in pixels of the image."""
    patch: np.ndarray
    """It, resized: uint8."""
    shifted: np.ndarray
    """What the network reads: uint8 [H, W, 3]."""


def shifting_samples(
    images: np.ndarray, config: RandomShiftingConfig, seed: int
) -> list[ShiftingSample]:
    """Draws one sample of each image, uint8 [B, H, W, 3], as if RSA were applied always.

    Args:
        images: the images.
        config: of the augmentation; its probability p is taken as 1.
        seed: of the drawing.
    """
    config = replace(config, probability=1.0)
    samples = []
    for number, image in enumerate(images):
        key = jax.random.fold_in(jax.random.key(seed), number)
        placement = draw_shifting(key, *image.shape[:2], config)
        batch = jax.tree.map(lambda x: np.asarray(x)[None], placement)
        placed = np.asarray(place(image[None], batch, config.fill))[0]
        shifted = np.clip(np.round(placed), 0, 255).astype(np.uint8)
        crop, target = (Box(*map(int, box)) for box in placement)
        rows = slice(target.top, target.top + target.height)
        columns = slice(target.left, target.left + target.width)
        samples.append(ShiftingSample(crop, shifted[rows, columns], shifted))
    return samples
