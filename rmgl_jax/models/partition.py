"""Receptive partition (III-B): fold a map into stripes, and what the stripes then see.

A folded map has the stripes along the batch, so the layers that follow share their weights between
stripes and, with zero padding at each stripe's edges, see nothing beyond their own.
"""

import math

import jax

from rmgl_jax.config import STAGES, FoldPosition, ModelConfig


def fold(maps: jax.Array, stripes: int) -> jax.Array:
    """Cuts maps into stripes along the batch: `[B, H, W, C] -> [B*S, H/S, W, C]`.

    Stripes of one image stay together, from top to bottom. In NHWC this is a reshape that moves
    no data.

    Raises:
        ValueError: The maps have not four axes, or `stripes` does not divide H.
    """
    if maps.ndim != 4:
        raise ValueError(f"fold takes maps [B, H, W, C], got shape {maps.shape}.")
    batch, height, width, channels = maps.shape
    if stripes < 1 or height % stripes:
        raise ValueError(f"{stripes} stripes do not divide maps of height {height}.")
    return maps.reshape(batch * stripes, height // stripes, width, channels)


def unfold(maps: jax.Array, stripes: int) -> jax.Array:
    """Puts stripes back together, the inverse of `fold`: `[B*S, H, W, C] -> [B, S*H, W, C]`.

    Raises:
        ValueError: The maps have not four axes, or `stripes` does not divide their number.
    """
    if maps.ndim != 4:
        raise ValueError(f"unfold takes maps [B*S, H, W, C], got shape {maps.shape}.")
    batch, height, width, channels = maps.shape
    if stripes < 1 or batch % stripes:
        raise ValueError(f"A batch of {batch} maps does not hold images of {stripes} stripes.")
    return maps.reshape(batch // stripes, height * stripes, width, channels)


def _layers(config: ModelConfig, stage: FoldPosition) -> list[tuple[int, int]]:
    """Kernel size and stride of every layer of `stage` on the longest way through it."""
    if stage == "input":
        return []
    if stage == "stem":
        return [(7, 2), (3, 2)]
    stride = 2 if stage in ("res3", "res4") else 1
    down = [(1, stride), (3, 1)] if config.stride_in_1x1 else [(1, 1), (3, stride)]
    blocks = config.depth[STAGES.index(stage) - STAGES.index("res2")]
    return [*down, (1, 1)] + [(1, 1), (3, 1), (1, 1)] * (blocks - 1)


def _between(config: ModelConfig, start: FoldPosition, stop: FoldPosition) -> list[tuple[int, int]]:
    stages = STAGES[STAGES.index(start) + 1 : STAGES.index(stop) + 1]
    return [layer for stage in stages for layer in _layers(config, stage)]


def receptive_field(
    config: ModelConfig, start: FoldPosition = "input", stop: FoldPosition | None = None
) -> int:
    """Receptive field r of a neuron of map `stop`, in rows of map `start` (Eq. 5).

    A layer of kernel size k adds k - 1 times the strides before it. `stop` is by default the last
    map. ResNet-50 with its stride in the 3x3 convolution and none in res5 has 363 pixels.

    Raises:
        ValueError: `start` or `stop` is no map of the network, or `stop` is before `start`.
    """
    stop = stop or config.last_stage
    maps = STAGES[: STAGES.index(config.last_stage) + 1]
    if start not in maps or stop not in maps or maps.index(start) > maps.index(stop):
        raise ValueError(f"start and stop must be maps of {maps}, in order, got {start}, {stop}.")
    field, jump = 1, 1
    for kernel, stride in _between(config, start, stop):
        field += (kernel - 1) * jump
        jump *= stride
    return field


def stripe_receptive_region(config: ModelConfig, stripes: int, fold_at: FoldPosition) -> int:
    """Height in pixels of the image region that a stripe folded at `fold_at` sees (Eq. 6).

    This is the paper's bound; the image's own height and the position of the stripe may make the
    region smaller.

    Raises:
        ValueError: `stripes` does not divide the height of the map at `fold_at`.
    """
    rows = _stripe_rows(config, stripes, fold_at)
    jump = math.prod(stride for _, stride in _between(config, "input", fold_at))
    return receptive_field(config, stop=fold_at) + (rows - 1) * jump


def restricts_receptive_field(config: ModelConfig, stripes: int, fold_at: FoldPosition) -> bool:
    """Whether folding cuts connections to other stripes (Eq. 7).

    That is so if the layers after the fold reach at least a stripe's height: if they would, not
    folded, have looked across its edges from every row.

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
