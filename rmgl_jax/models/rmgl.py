"""RMGL (III-A): branches of several granularities, with two paths each over the same weights."""

import dataclasses
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from rmgl_jax.config import STAGES, FoldPosition, ModelConfig, PathName
from rmgl_jax.models.convolution import Conv
from rmgl_jax.models.heads import Classifier, Reduction
from rmgl_jax.models.partition import fold, unfold
from rmgl_jax.models.pooling import activation_balanced_pool, uniform_stripe_pool
from rmgl_jax.models.resnet import Stage, Stem

SHARED_STAGES: tuple[FoldPosition, ...] = ("stem", "res2")
"""Stages that all branches share; those after them are each branch's own."""


@dataclass(frozen=True)
class FeatureSpec:
    """What one of the N part features is of."""

    branch: int
    """Number of the branch, from 0: the place of its granularity in the configuration."""
    granularity: int
    """Stripes of the branch."""
    path: PathName
    """Path whose map is pooled."""
    stripe: int
    """Stripe s of Eqs. 2 and 4: 0 is the whole map, 1 the top stripe."""

    @property
    def map_name(self) -> str:
        """The map that is pooled, such as "local2/original": a key of `feature_maps`."""
        return f"local{self.granularity}/{self.path}"

    @property
    def name(self) -> str:
        """A readable name, such as "local2/original/global" or "local3/receptive/2"."""
        return f"{self.map_name}/{self.stripe or 'global'}"


def feature_layout(config: ModelConfig) -> tuple[FeatureSpec, ...]:
    """What the N part features are of, in the order of the model's outputs.

    Branch by branch; in each the original path, then the receptive one; in each the whole map, then
    the stripes from top to bottom. RMGL as published has N = 2 (1 + 2) + 2 (1 + 3) = 14.
    """
    return tuple(
        FeatureSpec(path.branch, path.granularity, path.path, stripe)
        for path in _paths(config)
        for stripe in range(0 if path.has_global else 1, path.stripes + 1)
    )


@dataclass(frozen=True)
class _PathPlan:
    """One path of one branch: how its map is made and what is pooled from it."""

    branch: int
    granularity: int
    path: PathName
    folds: int  # parts the map is folded into on the way
    has_global: bool
    stripes: int  # stripe features; none in a global branch

    @property
    def map_name(self) -> str:
        return f"local{self.granularity}/{self.path}"


def _paths(config: ModelConfig) -> list[_PathPlan]:
    """Every path of every branch, in order."""
    plans = []
    for branch, granularity in enumerate(config.granularities):
        if granularity == 1:  # nothing to partition
            plans.append(_PathPlan(branch, 1, "original", 1, True, 0))
            continue
        if "original" in config.paths:
            has_global = config.original_global
            plans.append(_PathPlan(branch, granularity, "original", 1, has_global, granularity))
        if "receptive" in config.paths:
            has_global, folds = config.receptive_global, config.fold_stripes(branch)
            plans.append(_PathPlan(branch, granularity, "receptive", folds, has_global, folds))
    return plans


class Backbone(nn.Module):
    """The network up to the last maps of every branch and path.

    Parameters are those of one network per branch, whatever the paths: `stem` and `res2` belong to
    all branches, `local2_res3` and so on to one.
    """

    config: ModelConfig
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps `[B, H, W, 3]` to `{"local2/original": [B, h, w, C], ...}`, receptive ones unfolded.

        In training every path has batch statistics of its own, and the running statistics take
        them in one after another: the original path's first, then the receptive path's.
        """
        config = self.config
        stages = self._stages()
        done: dict[tuple[str, int], jax.Array] = {}  # every map is computed once

        def follow(granularity: int, name: FoldPosition, folds: int) -> jax.Array:
            """The map `name` of a branch, in `folds` stripes if it is not before the fold."""
            if name == "input" and folds == 1:
                return images
            if name == config.fold_at and folds > 1:
                return fold(follow(granularity, name, 1), folds)
            module = stages[stage_name(granularity, name)]
            if (module.name, folds) not in done:
                before = STAGES[STAGES.index(name) - 1]
                done[module.name, folds] = module(follow(granularity, before, folds), train)
            return done[module.name, folds]

        return {
            path.map_name: unfold(
                follow(path.granularity, config.last_stage, path.folds), path.folds
            )
            for path in _paths(config)
        }

    def _stages(self) -> dict[str, nn.Module]:
        """All stages, by name."""
        config = self.config
        dtype = jnp.dtype(config.dtype)
        conv = partial(Conv, dtype=dtype)
        norm = partial(
            nn.BatchNorm,
            momentum=config.batch_norm_momentum,
            dtype=dtype,
            axis_name=self.axis_name,
        )
        stages: dict[str, nn.Module] = {"stem": Stem(config.width, conv, norm, name="stem")}
        names = STAGES[STAGES.index("res2") : STAGES.index(config.last_stage) + 1]
        for granularity in config.granularities:
            for number, stage in enumerate(names):
                name = stage_name(granularity, stage)
                if name not in stages:
                    stages[name] = Stage(
                        blocks=config.depth[number],
                        features=config.width * 2**number,
                        stride=2 if stage in ("res3", "res4") else 1,
                        stride_in_1x1=config.stride_in_1x1,
                        conv=conv,
                        norm=norm,
                        remat=config.remat,
                        name=name,
                    )
        return stages


def stage_name(granularity: int, stage: FoldPosition) -> str:
    """Name of the backbone's module that is a branch's `stage`, such as "res2", "local3_res4"."""
    return stage if stage in SHARED_STAGES else f"local{granularity}_{stage}"


@struct.dataclass
class Output:
    """What the model gives for B images, all in float32. `feature_layout` tells what the N are."""

    features: jax.Array
    """Part features `[B, N, D]`, after the reductions."""
    logits: jax.Array
    """Scores of every identity by every feature's classifier, `[B, N, classes]`."""
    embedding: jax.Array
    """The features of an image side by side, `[B, N*D]` (Eq. 1). Not normalized."""


class RMGL(nn.Module):
    """The network of the paper: `RMGL(config).apply(variables, images, train=False)`.

    The collections are `params`, with `backbone`, `reduction` and `classifier`, and `batch_stats`.
    Convolutions start from He's normal distribution, classifiers from one of deviation 0.001.

    Images may have another size than the configuration's, if its stripes divide it: the network is
    convolutional.
    """

    config: ModelConfig
    axis_name: str | None = None
    """Name of the device axis of `pmap` or `shard_map` over which batch statistics are averaged;
    None is per device. Not used with `train=False`."""

    def setup(self) -> None:
        """Makes the submodules."""
        config = self.config
        self.backbone = Backbone(config, self.axis_name)
        self.reduction = Reduction(
            config.embed_dim,
            momentum=config.batch_norm_momentum,
            relu=config.reduction_relu,
            axis_name=self.axis_name,
        )
        self.classifier = Classifier(config.num_classes)

    def __call__(self, images: jax.Array, train: bool = False) -> Output:
        """Features, logits and embedding of normalized float images `[B, H, W, 3]`.

        With `train=True` batch norms use the batch's statistics and update the running ones, so
        `mutable=["batch_stats"]` is needed. Running variances take in the biased variance of the
        batch (torch: the unbiased one).

        Raises:
            TypeError: The images are not floats.
            ValueError: The images have a wrong shape.
        """
        features = self.reduction(self._pool(self.feature_maps(images, train), train), train)
        return Output(
            features=features,
            logits=self.classifier(features),
            embedding=features.reshape(features.shape[0], -1),
        )

    def feature_maps(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """The last maps, `{"local2/original": [B, h, w, C], "local2/receptive": ..., ...}`.

        They are float32, those of receptive paths unfolded. `apply(..., method="feature_maps")`.

        Raises:
            TypeError: The images are not floats.
            ValueError: The images have a wrong shape.
        """
        _check_images(images, self.config)
        maps = self.backbone(images.astype(self.config.dtype), train)
        return {name: value.astype(jnp.float32) for name, value in maps.items()}

    def _pool(self, maps: dict[str, jax.Array], train: bool) -> jax.Array:
        """Pools every map to its global and stripe vectors: `[B, N, C]`."""
        config = self.config
        use_abp = config.abp == "always" or (config.abp == "test" and not train)
        parts = []
        for path in _paths(config):
            source = maps[path.map_name]
            if path.has_global:
                parts.append(uniform_stripe_pool(source, 1, config.global_pool))
            if path.stripes and use_abp and path.path in config.abp_paths:
                parts.append(activation_balanced_pool(source, path.stripes, config.balanced_pool))
            elif path.stripes:
                parts.append(uniform_stripe_pool(source, path.stripes, config.uniform_pool))
        return jnp.concatenate(parts, axis=1)


def _check_images(images: jax.Array, config: ModelConfig) -> None:
    """Refuses what the network cannot take, with the configuration's own words on heights."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Images must be [B, H, W, 3], got shape {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"Images must be normalized floats, got {images.dtype}.")
    if images.shape[1:3] != config.image_size:
        dataclasses.replace(config, image_size=images.shape[1:3])
