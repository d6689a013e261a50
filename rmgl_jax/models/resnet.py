"""The stages of a bottleneck ResNet (He et al., CVPR 2016), with torchvision's arithmetic."""

from collections.abc import Callable

import jax
from flax import linen as nn

from rmgl_jax.cpu.max_pooling import max_pool

ModuleFactory = Callable[..., nn.Module]

EXPANSION = 4
"""Channels a bottleneck gives, relative to those inside it."""


class Stem(nn.Module):
    """7x7 convolution and 3x3 max pooling, both of stride 2: `[B, H, W, 3] -> [B, H/4, W/4, C]`."""

    features: int
    conv: ModuleFactory
    norm: ModuleFactory

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps images to the first map."""
        x = self.conv(self.features, 7, 2, name="conv")(x)
        x = nn.relu(self.norm(name="bn")(x, use_running_average=not train))
        return max_pool(x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolution and a shortcut: `[B, H, W, C'] -> [B, H/stride, W/stride, C]`.

    C is four times `features`. With `project` the shortcut is a 1x1 convolution of the same stride.
    """

    features: int
    stride: int
    project: bool
    stride_in_1x1: bool
    conv: ModuleFactory
    norm: ModuleFactory

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the block."""

        def conv_bn(y: jax.Array, suffix: str, *conv_args: int) -> jax.Array:
            y = self.conv(*conv_args, name=f"conv{suffix}")(y)
            return self.norm(name=f"bn{suffix}")(y, use_running_average=not train)

        first, second = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        wide = EXPANSION * self.features
        y = nn.relu(conv_bn(x, "1", self.features, 1, first))
        y = nn.relu(conv_bn(y, "2", self.features, 3, second))
        y = conv_bn(y, "3", wide, 1, 1)
        shortcut = conv_bn(x, "_shortcut", wide, 1, self.stride) if self.project else x
        return nn.relu(shortcut + y)


class Stage(nn.Module):
    """Bottlenecks `block1, block2, ...`; the first has the stride and the projection."""

    blocks: int
    features: int
    stride: int
    stride_in_1x1: bool
    conv: ModuleFactory
    norm: ModuleFactory
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the blocks one after another."""
        # `train` is argument 2, after `self` and `x`.
        block = nn.remat(Bottleneck, static_argnums=(2,)) if self.remat else Bottleneck
        for index in range(self.blocks):
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
