"""Responses on the last maps of the original and the receptive paths (Fig. 4)."""

from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import jax
import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image

from rmgl_jax.config import ModelConfig
from rmgl_jax.data.normalization import normalize
from rmgl_jax.models.rmgl import RMGL


@partial(jax.jit, static_argnames="config")
def last_maps(
    config: ModelConfig, variables: Mapping[str, Any], images: jax.Array
) -> dict[str, jax.Array]:
    """Computes the last maps of images, `{"local2/original": [B, h, w, C], ...}`.

    Args:
        config: configuration of the model.
        variables: `params` and `batch_stats` of the model.
        images: uint8 [B, H, W, 3].
    """
    maps = RMGL(config).apply(variables, normalize(images), method="feature_maps")
    return cast(dict[str, jax.Array], maps)


def responses(maps: npt.ArrayLike) -> np.ndarray:
    """Averages the channels and scales each image to 0..1, `[B, h, w, C] -> [B, h, w]`.

    A constant response becomes zeros.
    """
    mean = np.asarray(maps, np.float32).mean(axis=3)
    low, high = (f(mean, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return (mean - low) / np.where(high > low, high - low, 1.0)


def overlay(pixels: np.ndarray, response: np.ndarray, height: int) -> np.ndarray:
    """Draws a response over an image with a color map, from dark (0) to yellow (1).

    Args:
        pixels: uint8 [H, W, 3].
        response: [h, w], values 0..1.
        height: height of the result; its width keeps the image's proportions.

    Returns:
        uint8 [height, W', 3].
    """
    size = (max(1, round(pixels.shape[1] * height / pixels.shape[0])), height)
    image = Image.fromarray(np.asarray(pixels)).resize(size, Image.Resampling.BICUBIC)
    smooth = Image.fromarray(response.astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
    heat = matplotlib.colormaps["inferno"](np.clip(np.asarray(smooth), 0.0, 1.0))[..., :3]
    # Gray, because the image's own colors would be read as response.
    gray = np.asarray(image.convert("L"), np.float32)[..., None] / 255
    return np.round(255 * (0.4 * gray + 0.6 * heat)).astype(np.uint8)
