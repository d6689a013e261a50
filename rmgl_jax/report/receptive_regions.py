"""Image regions that the stripes of each path see (Fig. 3)."""

from dataclasses import dataclass

from rmgl_jax.config import FoldPosition, ModelConfig
from rmgl_jax.models.partition import receptive_field
from rmgl_jax.models.rmgl import feature_layout


@dataclass(frozen=True)
class PathRegions:
    """Regions of the stripes of one path, from top to bottom, in rows of the image."""

    map_name: str
    """Name of the path's map, such as "local2/receptive"."""
    folded: bool
    """The map is folded into the stripes, as in a receptive path."""
    seen: tuple[tuple[int, int], ...]
    """First row that a stripe sees and the one after the last, clipped to the image."""
    height: int
    """Rows that a stripe would see of an unlimited image; Eq. 6 for a receptive path."""


def receptive_regions(config: ModelConfig) -> list[PathRegions]:
    """Computes the regions of every path that has stripes; with ABP they are taken as uniform.

    A stripe of a receptive path sees what its rows of the folded map see; a stripe of an original
    path sees what its rows of the last map see.
    """
    stripes = {spec.map_name: (spec.path, spec.stripe) for spec in feature_layout(config)}
    found = []
    for name, (path, count) in stripes.items():
        if count == 0:  # a global branch
            continue
        folded = path == "receptive"
        stage = config.fold_at if folded else config.last_stage
        rows = config.map_height(stage) // count
        spans = [
            image_rows(config, stage, stripe * rows, (stripe + 1) * rows) for stripe in range(count)
        ]
        height = config.image_size[0]
        found.append(
            PathRegions(
                map_name=name,
                folded=folded,
                seen=tuple((max(start, 0), min(stop, height)) for start, stop in spans),
                height=spans[0][1] - spans[0][0],
            )
        )
    return found


def image_rows(config: ModelConfig, stage: FoldPosition, start: int, stop: int) -> tuple[int, int]:
    """Returns the image rows that rows start..stop-1 of a map see.

    Every layer is padded by half its kernel, so row i of the map is centered at image row i times
    the stride, with half of its receptive field on either side.
    """
    stride = config.image_size[0] // config.map_height(stage)
    half = (receptive_field(config, stop=stage) - 1) // 2
    return start * stride - half, (stop - 1) * stride + half + 1
