"""Receptive partition (III-B): folding a map into stripes, and the receptive field of stripes.

A folded map has its stripes along the batch. The layers that follow therefore share their weights
between stripes and, with zero padding at each stripe's edges, see only their own stripe.
"""

import jax

from rmgl_jax.config import ModelConfig
from rmgl_jax.stages import STAGES, FoldPosition, Layer, layers, map_stride


def fold(maps: jax.Array, stripes: int) -> jax.Array:
    """Cuts maps into stripes along the batch: `[B, H, W, C] -> [B*S, H/S, W, C]`.

    The stripes of one image are adjacent, from top to bottom. In NHWC this is a reshape that moves
    no data.

    Raises:
        ValueError: The maps do not have four axes, or `stripes` does not divide H.
    """
    if maps.ndim != 4:
        raise ValueError(f"fold takes maps [B, H, W, C], got shape {maps.shape}.")
    batch, height, width, channels = maps.shape
    if stripes < 1 or height % stripes:
        raise ValueError(f"{stripes} stripes do not divide maps of height {height}.")
    return maps.reshape(batch * stripes, height // stripes, width, channels)


def unfold(maps: jax.Array, stripes: int) -> jax.Array:
    """Joins stripes to whole maps, the inverse of `fold`: `[B*S, H, W, C] -> [B, S*H, W, C]`.

    Raises:
        ValueError: The maps do not have four axes, or `stripes` does not divide their number.
    """
    if maps.ndim != 4:
        raise ValueError(f"unfold takes maps [B*S, H, W, C], got shape {maps.shape}.")
    batch, height, width, channels = maps.shape
    if stripes < 1 or batch % stripes:
        raise ValueError(f"A batch of {batch} maps does not hold images of {stripes} stripes.")
    return maps.reshape(batch // stripes, height * stripes, width, channels)


def receptive_field(
    config: ModelConfig, start: FoldPosition = "input", stop: FoldPosition | None = None
) -> int:
    """Receptive field r of a neuron of map `stop`, in rows of map `start` (Eq. 5).

    A layer with kernel size k adds k - 1 times the product of the strides before it. `stop` is the
    last map by default. ResNet-50 with the stride in the 3x3 convolution and stride 1 in res5 has
    a receptive field of 363 pixels.

    Raises:
        ValueError: `start` or `stop` is not a map of the network, or `stop` is before `start`.
    """
    stop = stop or config.last_stage
    maps = STAGES[: STAGES.index(config.last_stage) + 1]
    if start not in maps or stop not in maps or maps.index(start) > maps.index(stop):
        raise ValueError(f"start and stop must be maps of {maps}, in order, got {start}, {stop}.")
    field, jump = 1, 1
    for layer in _layers_between(config, start, stop):
        field += (layer.kernel - 1) * jump
        jump *= layer.stride
    return field


def _layers_between(config: ModelConfig, start: FoldPosition, stop: FoldPosition) -> list[Layer]:
    names = STAGES[STAGES.index(start) + 1 : STAGES.index(stop) + 1]
    return [layer for name in names for layer in layers(name, config.depth, config.stride_in_1x1)]


def stripe_receptive_region(config: ModelConfig, stripes: int, fold_at: FoldPosition) -> int:
    """Height in pixels of the image region that a stripe folded at `fold_at` sees (Eq. 6).

    This is the paper's bound; the edges of the image may make the region smaller.

    Raises:
        ValueError: `stripes` does not divide the height of the map at `fold_at`.
    """
    rows = _stripe_rows(config, stripes, fold_at)
    return receptive_field(config, stop=fold_at) + (rows - 1) * map_stride(fold_at)


def restricts_receptive_field(config: ModelConfig, stripes: int, fold_at: FoldPosition) -> bool:
    """True if folding cuts connections to other stripes (Eq. 7).

    It does if the layers after the fold reach at least the height of a stripe: without the fold
    every row of the stripe would see beyond its edges.

    Raises:
        ValueError: `stripes` does not divide the height of the map at `fold_at`.
    """
    rows = _stripe_rows(config, stripes, fold_at)
    return receptive_field(config, start=fold_at) >= rows


def _stripe_rows(config: ModelConfig, stripes: int, fold_at: FoldPosition) -> int:
    height = config.map_height(fold_at)
    if stripes < 1 or height % stripes:
        raise ValueError(f"{stripes} stripes do not divide the map {fold_at!r} of height {height}.")
    return height // stripes
