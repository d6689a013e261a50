"""What each stripe sees of the image, in both paths (Fig. 3)."""

from dataclasses import dataclass

from rmgl_jax.config import FoldPosition, ModelConfig
from rmgl_jax.models.partition import receptive_field
from rmgl_jax.models.rmgl import feature_layout


@dataclass(frozen=True)
class PathRegions:
    """The stripes of one path of one branch, from top to bottom, in pixel rows."""

    map_name: str
    """Such as "local2/receptive"."""
    seen: tuple[tuple[int, int], ...]
    """First row that a stripe sees, and the one after the last; cut at the image's edges."""
    height: int
    """Rows that a stripe would see of an endless image: Eq. 6 for the receptive path."""


def receptive_regions(config: ModelConfig) -> list[PathRegions]:
    """Regions of every path that has stripes; those of ABP taken as uniform.

    A receptive stripe sees what its rows of the folded map see. A stripe of the original path sees
    what its rows of the last map see.
    """
    stripes = {spec.map_name: (spec.path, spec.stripe) for spec in feature_layout(config)}
    found = []
    for name, (path, count) in stripes.items():
        if count == 0:  # a global branch
            continue
        stage = config.fold_at if path == "receptive" else config.last_stage
        rows = config.map_height(stage) // count
        spans = [
            _pixels(config, stage, stripe * rows, (stripe + 1) * rows) for stripe in range(count)
        ]
        image = config.image_size[0]
        found.append(
            PathRegions(
                map_name=name,
                seen=tuple((max(start, 0), min(stop, image)) for start, stop in spans),
                height=spans[0][1] - spans[0][0],
            )
        )
    return found


def _pixels(config: ModelConfig, stage: FoldPosition, start: int, stop: int) -> tuple[int, int]:
    """Pixel rows that the rows start..stop-1 of a map see.

    Every layer is padded by half its kernel, so row i has its middle at pixel row i times the
    stride, and half of its receptive field on either side.
    """
    stride = config.image_size[0] // config.map_height(stage)
    half = (receptive_field(config, stop=stage) - 1) // 2
    return start * stride - half, (stop - 1) * stride + half + 1
