"""Stages of random shifting augmentation (Fig. 6)."""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmgl_jax.config import RandomShiftingConfig
from rmgl_jax.data.geometric import Box, Placement, crop_resize_paste
from rmgl_jax.data.shifting import draw_shifting


@dataclass(frozen=True, eq=False)
class ShiftingSample:
    """The stages of one image."""

    crop: Box
    """Crop, in pixels of the image."""
    patch: np.ndarray
    """The resized crop, uint8 [h, w, 3]."""
    shifted: np.ndarray
    """The patch on the canvas, which is the network's input, uint8 [H, W, 3]."""


def shifting_samples(
    images: np.ndarray, config: RandomShiftingConfig, seed: int
) -> list[ShiftingSample]:
    """Applies random shifting to every image.

    Args:
        images: uint8 [B, H, W, 3].
        config: configuration of the augmentation; its probability p is taken as 1.
        seed: seed of the random numbers.
    """
    placements, shifted = _shift(images, replace(config, probability=1.0), seed)
    shifted = np.clip(np.round(np.asarray(shifted)), 0, 255).astype(np.uint8)
    samples = []
    for number, image in enumerate(shifted):
        crop, target = (Box(*(int(side[number]) for side in box)) for box in placements)
        rows = slice(target.top, target.top + target.height)
        columns = slice(target.left, target.left + target.width)
        samples.append(ShiftingSample(crop, image[rows, columns], image))
    return samples


@partial(jax.jit, static_argnames="config")
def _shift(
    images: jax.Array, config: RandomShiftingConfig, seed: int
) -> tuple[Placement, jax.Array]:
    """Returns placements of [B], and the shifted images."""
    count, height, width, _ = images.shape
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(count))
    draw = partial(draw_shifting, height=height, width=width, config=config)
    placements = jax.vmap(draw)(keys)
    return placements, crop_resize_paste(images, placements, config.fill)
