"""RMGL (III-A): branches of several granularities, with two paths each over the same weights."""

import dataclasses
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import lax

from rmgl_jax.config import ModelConfig, PathName
from rmgl_jax.models.convolution import Conv
from rmgl_jax.models.folding import Shift
from rmgl_jax.models.heads import Classifier, Reduction
from rmgl_jax.models.partition import fold, unfold
from rmgl_jax.models.pooling import activation_balanced_pool, uniform_stripe_pool
from rmgl_jax.models.resnet import ModuleFactory, Stage, Stem
from rmgl_jax.stages import FoldPosition, FrozenPosition, Segment, is_frozen, segments


@dataclass(frozen=True)
class FeatureSpec:
    """Branch, path and stripe of one of the N part features."""

    branch: int
    """Index of the branch, from 0: that of its granularity in the configuration."""
    granularity: int
    """Stripes of the branch."""
    path: PathName
    """Path whose map is pooled."""
    stripe: int
    """Stripe s of Eqs. 2 and 4: 0 is the whole map, 1 the top stripe."""

    @property
    def branch_name(self) -> str:
        """Name of the branch, such as "local2"; "global" with granularity 1."""
        return branch_name(self.granularity)

    @property
    def map_name(self) -> str:
        """The map that is pooled, such as "local2/original" or "global": key of `feature_maps`."""
        return map_name(self.granularity, self.path)

    @property
    def name(self) -> str:
        """Name of the feature: "local2/original/global", "local3/receptive/2" or "global"."""
        if self.granularity == 1:
            return self.map_name
        return f"{self.map_name}/{self.stripe or 'global'}"


def branch_name(granularity: int) -> str:
    """Name of a branch, such as "local2"; "global" with granularity 1."""
    return "global" if granularity == 1 else f"local{granularity}"


def map_name(granularity: int, path: PathName) -> str:
    """Name of a last map, such as "local2/original"; "global" with granularity 1."""
    name = branch_name(granularity)
    return name if granularity == 1 else f"{name}/{path}"


@dataclass(frozen=True)
class BranchModule:
    """One module of the backbone on the way to the last map of a branch."""

    name: str
    """Name of the module, such as "stem", "res2" or "local3_res4"."""
    segment: Segment | None
    """Its blocks; None is the stem."""
    stride: int
    """Stride of its first block; the stem's is not used."""

    @property
    def ends(self) -> FoldPosition | None:
        """The map that it computes; None after a part of a stage."""
        if self.segment is None:
            return "stem"
        return self.segment.stage.name if self.segment.ends_stage else None


def branch_modules(config: ModelConfig, granularity: int) -> list[BranchModule]:
    """The modules from the images to the last map of the branch of `granularity`, in order."""
    modules = [BranchModule("stem", None, 1)]
    for segment in segments(config.last_stage, config.depth, config.branch_after):
        name, stride = segment.module(f"local{granularity}"), segment.stride
        if granularity == 1 and segment.stage.name == "res5" and segment.start == 0:
            stride = config.global_stride
        modules.append(BranchModule(name, segment, stride))
    return modules


def feature_layout(config: ModelConfig) -> tuple[FeatureSpec, ...]:
    """The N part features, in the order of the model's outputs.

    The order is by branch; in a branch the original path, then the receptive one; in a path the
    whole map, then the stripes from top to bottom. Published RMGL has N = 2 (1 + 2) + 2 (1 + 3) =
    14.
    """
    return tuple(
        FeatureSpec(path.branch, path.granularity, path.path, stripe)
        for path in _paths(config)
        for stripe in range(0 if path.has_global else 1, path.stripes + 1)
    )


@dataclass(frozen=True)
class _PathPlan:
    """One path of one branch: how its map is computed and what is pooled from it."""

    branch: int
    granularity: int
    path: PathName
    folds: int  # stripes that the map at `fold_at` is folded into; 1 is no fold
    has_global: bool
    stripes: int  # stripe features; none in a global branch

    @property
    def map_name(self) -> str:
        return map_name(self.granularity, self.path)


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

    Its parameters are those of one network per branch, whatever the paths. Up to
    `config.branch_after` they belong to all branches (`stem`, `res2`), from there on to one
    (`local2_res3` and so on).
    """

    config: ModelConfig
    norm: ModuleFactory
    """Makes the batch norm after a convolution."""
    frozen_until: FrozenPosition | None = None
    """See `RMGL`."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> dict[str, jax.Array]:
        """Maps `[B, H, W, 3]` to `{"local2/original": [B, h, w, C], ...}`, receptive ones unfolded.

        In training every path has its own batch statistics. They update the running statistics one
        after another: first those of the original path, then those of the receptive path.
        """
        config = self.config
        modules = self._modules()
        computed: dict[tuple[str, int], jax.Array] = {}  # by module and number of folds
        maps = {}
        for path in _paths(config):
            x, folds = images, 1
            if config.fold_at == "input" and path.folds > 1:
                x, folds = fold(x, path.folds), path.folds
            for module in branch_modules(config, path.granularity):
                key = (module.name, folds)
                if key not in computed:
                    frozen = is_frozen(module.name, self.frozen_until)
                    y = modules[module.name](x, train and not frozen)
                    computed[key] = lax.stop_gradient(y) if frozen else y
                x = computed[key]
                if module.ends == config.fold_at and path.folds > 1:
                    x, folds = fold(x, path.folds), path.folds
            maps[path.map_name] = unfold(x, folds)
        return maps

    def _modules(self) -> dict[str, nn.Module]:
        """The modules of all stages of all branches, by name."""
        config, norm = self.config, self.norm
        conv = partial(Conv, dtype=jnp.dtype(config.dtype))
        modules: dict[str, nn.Module] = {"stem": Stem(config.width, conv, norm, name="stem")}
        for granularity in config.granularities:
            for module in branch_modules(config, granularity):
                segment = module.segment
                if segment is not None and module.name not in modules:
                    modules[module.name] = Stage(
                        blocks=segment.stop - segment.start,
                        features=config.width * segment.stage.width,
                        stride=module.stride,
                        stride_in_1x1=config.stride_in_1x1,
                        conv=conv,
                        norm=norm,
                        start=segment.start,
                        remat=config.remat,
                        name=module.name,
                    )
        return modules


@struct.dataclass
class Output:
    """Outputs for B images, all in float32. `feature_layout` lists the N part features."""

    features: jax.Array
    """Part features `[B, N, D]`, after the reductions."""
    logits: jax.Array
    """Scores of every identity from every feature's classifier, `[B, N, classes]`."""
    embedding: jax.Array
    """The concatenated features of an image, `[B, N*D]` (Eq. 1). Not normalized."""


class RMGL(nn.Module):
    """The network of the paper: `RMGL(config).apply(variables, images, train=False)`.

    The collections are `params`, with `backbone`, `reduction` and `classifier`, and `batch_stats`.
    With `global_classifier="pooled"` the whole maps have their own `global_classifier`.
    Convolutions start from He's normal distribution, classifiers from a normal distribution of
    standard deviation 0.001.

    Images may have another size than the configuration's if the stripes divide it.
    """

    config: ModelConfig
    axis_name: str | None = None
    """Device axis of `pmap` or `shard_map` over which batch statistics are averaged; None is per
    device. Not used with `train=False`."""
    folded: bool = False
    """Take the variables of `fold_batch_norm`, for `part_features` in inference: `params` alone,
    without classifiers and with batch norm folded into the kernels."""
    frozen_until: FrozenPosition | None = None
    """The map up to which the backbone is constant: no gradient flows into it, and its batch norms
    use the running statistics. None is nothing."""

    def setup(self) -> None:
        """Creates the submodules."""
        config = self.config
        norm = partial(nn.BatchNorm, momentum=config.batch_norm_momentum, axis_name=self.axis_name)
        self.backbone = Backbone(
            config,
            Shift if self.folded else partial(norm, dtype=jnp.dtype(config.dtype)),
            self.frozen_until,
        )
        self.reduction = Reduction(
            config.embed_dim,
            partial(Shift, axes=2) if self.folded else partial(norm, axis=(1, 2)),
            relu=config.reduction_relu,
        )
        self.classifier = Classifier(config.num_classes)
        if config.global_classifier == "pooled":
            self.global_classifier = Classifier(config.num_classes)

    def __call__(self, images: jax.Array, train: bool = False) -> Output:
        """Features, logits and embedding of normalized float images `[B, H, W, 3]`.

        With `train=True` batch norms use the batch's statistics and update the running ones, so
        `mutable=["batch_stats"]` is needed. Running variances average the biased variance of the
        batch (torch: the unbiased one).

        Raises:
            TypeError: The images are not floats.
            ValueError: The images have a wrong shape.
        """
        pooled = self.pool(self.feature_maps(images, train), train)
        features = self.reduction(pooled, train)
        return Output(
            features=features,
            logits=self.classify(pooled, features),
            embedding=features.reshape(features.shape[0], -1),
        )

    def classify(self, pooled: jax.Array, features: jax.Array) -> jax.Array:
        """Scores `[B, N, classes]` from vectors `[B, N, C]` and their reductions `[B, N, D]`."""
        if self.config.global_classifier == "reduced":
            return self.classifier(features)
        stripes = np.array([spec.stripe for spec in feature_layout(self.config)])
        whole, parts = np.flatnonzero(stripes == 0), np.flatnonzero(stripes)
        logits = jnp.concatenate(
            [self.global_classifier(pooled[:, whole]), self.classifier(features[:, parts])], axis=1
        )
        return logits[:, np.argsort(np.concatenate([whole, parts]))]

    def part_features(self, images: jax.Array, train: bool = False) -> jax.Array:
        """The part features `[B, N, D]` of normalized float images, as `__call__` computes them."""
        return self.reduction(self.pool(self.feature_maps(images, train), train), train)

    def feature_maps(self, images: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """The last maps, `{"local2/original": [B, h, w, C], "local2/receptive": ..., ...}`.

        They are float32, and those of receptive paths are unfolded. Call it by
        `apply(..., method="feature_maps")`.

        Raises:
            TypeError: The images are not floats.
            ValueError: The images have a wrong shape.
        """
        _check_images(images, self.config)
        maps = self.backbone(images.astype(self.config.dtype), train)
        return {name: value.astype(jnp.float32) for name, value in maps.items()}

    def pool(self, maps: dict[str, jax.Array], train: bool) -> jax.Array:
        """Pools the maps of `feature_maps` to their global and stripe vectors: `[B, N, C]`."""
        config = self.config
        parts = []
        for path in _paths(config):
            source = maps[path.map_name]
            if path.has_global:
                parts.append(uniform_stripe_pool(source, 1, config.global_pool))
            if path.stripes:
                balanced = config.uses_abp(path.path, train)
                pool = activation_balanced_pool if balanced else uniform_stripe_pool
                parts.append(pool(source, path.stripes, config.stripe_pool(path.path, train)))
        return jnp.concatenate(parts, axis=1)


def _check_images(images: jax.Array, config: ModelConfig) -> None:
    """Raises an error for images that the network does not take."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"Images must be [B, H, W, 3], got shape {images.shape}.")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise TypeError(f"Images must be normalized floats, got {images.dtype}.")
    size = (images.shape[1], images.shape[2])
    if size != config.image_size:
        dataclasses.replace(config, image_size=size)  # checks the size
