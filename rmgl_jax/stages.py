"""The stages of the ResNet as data: the single description of the backbone.

The modules (`models.resnet`, `models.rmgl`), the heights and strides of maps (`config`), the
receptive field (`models.partition`) and the names of weights (`models.pretrained`) derive from it.
The number of blocks of each residual stage is `ModelConfig.depth`: (3, 4, 6, 3) is ResNet-50 and
(3, 4, 23, 3) is ResNet-101.
"""

import math
from dataclasses import dataclass
from typing import Literal

FoldPosition = Literal["input", "stem", "res2", "res3", "res4", "res5"]
BranchPosition = Literal["stem", "res2", "res3", "res4_1", "res4"]
"""The map after which branches have their own weights; "res4_1" is that of res4's first block."""
FrozenPosition = Literal["stem", "res2", "res3", "res4"]
"""The map up to which weights can be kept in training."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a pooling."""

    kernel: int
    """Rows and columns of the kernel or window."""
    stride: int
    width: int = 1
    """Output channels, relative to the first layer of the stem or of the block."""


@dataclass(frozen=True)
class ResidualStage:
    """A sequence of bottleneck blocks, the first of which has the stride and a projection."""

    name: FoldPosition
    torch_name: str
    """Prefix of the stage's weights in torchvision's ResNet."""
    width: int
    """Inner channels of its blocks, relative to the channels of the stem."""
    stride: int


STEM = (Layer(kernel=7, stride=2), Layer(kernel=3, stride=2))
"""The stem: a convolution, then max pooling."""

RESIDUAL_STAGES = (
    ResidualStage("res2", "layer1", width=1, stride=1),
    ResidualStage("res3", "layer2", width=2, stride=2),
    ResidualStage("res4", "layer3", width=4, stride=2),
    ResidualStage("res5", "layer4", width=8, stride=1),
)

STAGES: tuple[FoldPosition, ...] = ("input", "stem", *(stage.name for stage in RESIDUAL_STAGES))
"""Names of the maps, from the input to the output. Each can be folded."""


def residual_stages(last: FoldPosition) -> tuple[ResidualStage, ...]:
    """The residual stages of a network that ends with stage `last`."""
    names = [stage.name for stage in RESIDUAL_STAGES]
    return RESIDUAL_STAGES[: names.index(last) + 1]


@dataclass(frozen=True)
class Segment:
    """Consecutive blocks of one stage, whose weights belong to all branches or to one."""

    stage: ResidualStage
    start: int
    """First of its blocks, from 0."""
    stop: int
    """The block after its last."""
    shared: bool
    """Use the same weights in all branches; otherwise every branch has its own."""
    ends_stage: bool
    """Its output is the map of the stage."""

    @property
    def stride(self) -> int:
        """Stride of its first block, which also has the projection if `start` is 0."""
        return self.stage.stride if self.start == 0 else 1

    def module(self, branch: str) -> str:
        """Name of its module in the backbone, such as "res2" or "local3_res4"."""
        return self.stage.name if self.shared else f"{branch}_{self.stage.name}"


def is_frozen(module: str, frozen_until: FrozenPosition | None) -> bool:
    """True if a module of the backbone, such as "local3_res4", is kept up to that map."""
    stages: tuple[str, ...] = STAGES
    stage = module.rpartition("_")[2]
    return frozen_until is not None and stages.index(stage) <= stages.index(frozen_until)


def segments(
    last: FoldPosition, depth: tuple[int, ...], branch_after: BranchPosition
) -> list[Segment]:
    """The residual stages up to `last`, divided where the branches separate."""
    name, _, block = branch_after.partition("_")
    names = [str(stage) for stage in STAGES]
    found = []
    for stage, blocks in zip(residual_stages(last), depth, strict=False):
        shared = blocks if names.index(stage.name) < names.index(name) else 0
        if stage.name == name:
            shared = min(int(block or blocks), blocks)
        for start, stop, is_shared in ((0, shared, True), (shared, blocks, False)):
            if start < stop:
                found.append(Segment(stage, start, stop, is_shared, stop == blocks))
    return found


def bottleneck(stride: int, stride_in_1x1: bool) -> tuple[Layer, Layer, Layer]:
    """The convolutions of a block. Its shortcut has the block's stride in one 1x1 convolution.

    Args:
        stride: of the block.
        stride_in_1x1: Put the stride in the first 1x1 convolution (original MSRA weights) instead
            of the 3x3 convolution (torchvision).
    """
    first, second = (stride, 1) if stride_in_1x1 else (1, stride)
    return Layer(1, first), Layer(3, second), Layer(1, 1, width=4)


def layers(name: FoldPosition, depth: tuple[int, ...], stride_in_1x1: bool) -> list[Layer]:
    """All layers from the map before `name` to the map `name`, along the longest path."""
    if name == "input":
        return []
    if name == "stem":
        return list(STEM)
    stages = residual_stages(name)
    strides = [stages[-1].stride] + [1] * (depth[len(stages) - 1] - 1)
    return [layer for stride in strides for layer in bottleneck(stride, stride_in_1x1)]


def map_stride(name: FoldPosition) -> int:
    """Pixel rows between two neighboring rows of map `name`: 1 for the input, 16 for res5."""
    strides = {
        "input": 1,
        "stem": math.prod(layer.stride for layer in STEM),
        **{stage.name: stage.stride for stage in RESIDUAL_STAGES},
    }
    return math.prod(strides[stage] for stage in STAGES[: STAGES.index(name) + 1])
