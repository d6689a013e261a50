"""The modules of a bottleneck ResNet (He et al., CVPR 2016), with torchvision's arithmetic.

Their kernels, strides and widths are those of the table in `rmgl_jax.stages`.
"""

from collections.abc import Callable

import jax
from flax import linen as nn

from rmgl_jax import cpu
from rmgl_jax.stages import STEM, Layer, bottleneck

ModuleFactory = Callable[..., nn.Module]


class Stem(nn.Module):
    """7x7 convolution and 3x3 max pooling, both of stride 2: `[B, H, W, 3] -> [B, H/4, W/4, C]`."""

    features: int
    """C, the output channels."""
    conv: ModuleFactory
    norm: ModuleFactory

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Computes the first map of images."""
        layer = STEM[0]
        x = self.conv(self.features, layer.kernel, layer.stride, name="conv")(x)
        x = nn.relu(self.norm(name="bn")(x, use_running_average=not train))
        return cpu.max_pool(x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolution and a shortcut: `[B, H, W, C'] -> [B, H/stride, W/stride, C]`."""

    features: int
    """Inner channels; C is four times as many."""
    stride: int
    project: bool
    """Make the shortcut a 1x1 convolution of stride `stride`; otherwise it is the identity."""
    stride_in_1x1: bool
    """Put the stride in the first 1x1 convolution instead of the 3x3 one."""
    conv: ModuleFactory
    norm: ModuleFactory

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the block."""

        def conv_bn(y: jax.Array, suffix: str, layer: Layer) -> jax.Array:
            features = layer.width * self.features
            conv = self.conv(features, layer.kernel, layer.stride, name=f"conv{suffix}")
            return self.norm(name=f"bn{suffix}")(conv(y), use_running_average=not train)

        reduce, spatial, expand = bottleneck(self.stride, self.stride_in_1x1)
        y = nn.relu(conv_bn(x, "1", reduce))
        y = nn.relu(conv_bn(y, "2", spatial))
        y = conv_bn(y, "3", expand)
        projection = Layer(kernel=1, stride=self.stride, width=expand.width)
        shortcut = conv_bn(x, "_shortcut", projection) if self.project else x
        return nn.relu(shortcut + y)


class Stage(nn.Module):
    """Bottlenecks `block1, block2, ...`; `block1` has the stride and the projection.

    A stage may be in two modules, with the first blocks in one and the others in the next.
    """

    blocks: int
    features: int
    """Inner channels of the blocks."""
    stride: int
    stride_in_1x1: bool
    conv: ModuleFactory
    norm: ModuleFactory
    start: int = 0
    """Blocks of the stage that are in a module before this one."""
    remat: bool = False
    """Recompute the inside of each block in the backward pass."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the blocks one after another."""
        # `train` is argument 2, after `self` and `x`.
        block = nn.remat(Bottleneck, static_argnums=(2,)) if self.remat else Bottleneck
        for index in range(self.start, self.start + self.blocks):
            x = block(
                features=self.features,
                stride=self.stride if index == 0 else 1,
                project=index == 0,
                stride_in_1x1=self.stride_in_1x1,
                conv=self.conv,
                norm=self.norm,
                name=f"block{index + 1}",
            )(x, train)
        return x
