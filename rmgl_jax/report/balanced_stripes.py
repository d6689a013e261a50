"""Where activation balanced pooling puts the boundaries of an image's stripes (Fig. 5)."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from rmgl_jax.config import ModelConfig
from rmgl_jax.models.pooling import activation_balanced_bounds
from rmgl_jax.models.rmgl import feature_layout


@dataclass(frozen=True, eq=False)
class BalancedStripes:
    """The stripes of one image's map."""

    map_name: str
    """Such as "local2/original"."""
    peaks: np.ndarray
    """[h, w] number of channels that have their (first) maximum at a place (Eq. 8)."""
    bounds: np.ndarray
    """[S+1] rows of the map where stripes start and end (Eq. 10); the first is 0, the last h."""

    @property
    def shares(self) -> list[int]:
        """Per cent of the channels that have their maximum in each stripe."""
        rows = self.peaks.sum(axis=1)
        return [round(100 * part.sum() / rows.sum()) for part in np.split(rows, self.bounds[1:-1])]


def balanced_stripes(
    config: ModelConfig, maps: Mapping[str, jax.Array]
) -> list[list[BalancedStripes]]:
    """The stripes of every image, on each map that the configuration balances.

    Args:
        config: of the model.
        maps: last maps `[B, h, w, C]` by name; see `RMGL.feature_maps`.

    Returns:
        A list for each of the B images; empty ones if nothing is balanced.
    """
    images = len(next(iter(maps.values())))
    found: list[list[BalancedStripes]] = [[] for _ in range(images)]
    if config.abp == "off":
        return found
    stripes = {spec.map_name: (spec.path, spec.stripe) for spec in feature_layout(config)}
    for name, (path, count) in stripes.items():
        if count == 0 or path not in config.abp_paths:
            continue
        bounds = np.asarray(activation_balanced_bounds(maps[name], count))
        peaks = np.asarray(_peaks(maps[name]))
        for image in range(images):
            found[image].append(BalancedStripes(name, peaks[image], bounds[image]))
    return found


def _peaks(maps: jax.Array) -> jax.Array:
    """`[B, h, w, C] -> [B, h, w]`: how many channels have their first maximum at each place."""
    batch, height, width, channels = maps.shape
    flat = maps.reshape(batch, height * width, channels)
    here = jnp.arange(height * width)[None, :, None] == jnp.argmax(flat, axis=1)[:, None, :]
    return here.sum(axis=2).reshape(batch, height, width)
