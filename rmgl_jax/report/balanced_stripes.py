"""Stripes of activation balanced pooling for single images (Fig. 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rmgl_jax.config import ModelConfig
from rmgl_jax.models.pooling import activation_balanced_bounds
from rmgl_jax.models.rmgl import feature_layout


@dataclass(frozen=True, eq=False)
class BalancedStripes:
    """Stripes of one map of one image."""

    map_name: str
    """Name of the map, such as "local2/original"."""
    peaks: np.ndarray
    """Number of channels with their (first) maximum at each position, [h, w] (Eq. 8)."""
    bounds: np.ndarray
    """Rows of the map at which stripes start and end, [S+1], from 0 to h (Eq. 10)."""

    @property
    def shares(self) -> list[int]:
        """Percent of the channels that have their maximum in each stripe."""
        rows = self.peaks.sum(axis=1)
        return [round(100 * part.sum() / rows.sum()) for part in np.split(rows, self.bounds[1:-1])]


def balanced_stripes(
    config: ModelConfig, maps: Mapping[str, jax.Array]
) -> list[list[BalancedStripes]]:
    """Computes the stripes of every image, on each map with activation balanced pooling.

    Args:
        config: configuration of the model.
        maps: last maps [B, h, w, C] by name; see `RMGL.feature_maps`.

    Returns:
        A list for each of the B images, empty if the model has no such map.
    """
    n_images = len(next(iter(maps.values())))
    found: list[list[BalancedStripes]] = [[] for _ in range(n_images)]
    stripes = {spec.map_name: (spec.path, spec.stripe) for spec in feature_layout(config)}
    for name, (path, count) in stripes.items():
        if count == 0 or not config.uses_abp(path, train=False):
            continue
        bounds, peaks = (np.asarray(array) for array in _bounds_and_peaks(maps[name], count))
        for image in range(n_images):
            found[image].append(BalancedStripes(name, peaks[image], bounds[image]))
    return found


@partial(jax.jit, static_argnames="stripes")
def _bounds_and_peaks(maps: jax.Array, stripes: int) -> tuple[jax.Array, jax.Array]:
    """Computes boundaries [B, S+1], and numbers of channels by their first maximum [B, h, w]."""
    batch, height, width, channels = maps.shape
    flat = maps.reshape(batch, height * width, channels)
    at = jnp.arange(height * width)[None, :, None] == jnp.argmax(flat, axis=1)[:, None, :]
    peaks = at.sum(axis=2).reshape(batch, height, width)
    return activation_balanced_bounds(maps, stripes), peaks
