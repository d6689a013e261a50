"""Configuration: one frozen dataclass per concern, checked when it is made.

Every field has a default. The defaults together are RMGL on Market-1501: the paper's values where
it states them, and ours where it does not (docs/decisions.md lists those). Variants are made with
`dataclasses.replace`. The command line is derived from these classes: the docstring under a field
is its `--help` text, and its type says which values it takes.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from data_prep.errors import InputError
from rmgl_jax.field_checks import Range, check_fields
from rmgl_jax.stages import STAGES, BranchPosition, FoldPosition, FrozenPosition, map_stride

PathName = Literal["original", "receptive"]

Pooling = Literal["max", "mean"]
Count = Annotated[int, Range(1)]
Probability = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, open_low=True)]
Timing = Literal["off", "test", "always"]

Arithmetic = Literal["float32", "bfloat16"]
"""Type of the arithmetic of the convolutions."""

Engine = Literal["jax", "onnxruntime", "openvino"]
"""Runs a network on images; the other engines than JAX run on CPUs."""


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message)


class _Checked:
    """Checks every field of a dataclass against its annotation."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """The network. `ModelConfig()` is RMGL as published, with Market-1501's 751 identities."""

    num_classes: Count = 751
    """Identities of the training set: the width of every classifier. Taken from the data."""
    image_size: tuple[Count, Count] = (384, 128)
    """Height and width of the input in pixels, multiples of 16."""
    granularities: tuple[Count, ...] = (2, 3)
    """Stripes of each branch. 1 is a global branch: one path, one global feature."""
    paths: tuple[PathName, ...] = ("original", "receptive")
    """Paths of every branch over the same weights. ("original",) is the baseline of Table V,
    ("receptive",) its "only RP"."""
    fold_at: FoldPosition = "res2"
    """The map that the receptive path folds into stripes: the input, or the output of a stage.
    "res2" is the paper's choice, "input" is input and "res5" output partition (Fig. 9)."""
    receptive_stripes: tuple[Count, ...] | None = None
    """Stripes of each branch's receptive path; None uses `granularities` (Fig. 8)."""
    original_global: bool = True
    """Give the original path a global feature in addition to its stripes."""
    receptive_global: bool = True
    """Give the receptive path a global feature in addition to its stripes (s = 0 in Eq. 4)."""
    original_abp: Timing = "always"
    """Activation balanced stripes on the original path: never (uniform stripes), in evaluation
    only, or in training too. The paper has both readings."""
    receptive_abp: Timing = "off"
    """The same for the receptive path, whose stripes are its partition."""
    original_pool: Pooling = "mean"
    """Reduction within a stripe of the original path, balanced or not. Eq. 11 averages, III-A pools
    by the maximum."""
    receptive_pool: Pooling = "max"
    """Reduction within a stripe of the receptive path."""
    original_test_pool: Pooling | None = None
    """Another reduction of the original path's stripes in evaluation; None is that of training."""
    receptive_test_pool: Pooling | None = None
    """Another reduction of the receptive path's stripes in evaluation; None is that of training."""
    global_pool: Pooling = "max"
    """Reduction of the whole map."""
    embed_dim: Count = 256
    """Width D of every feature after its reduction."""
    reduction_relu: bool = False
    """Apply a ReLU after the batch norm of a reduction."""
    depth: tuple[Count, Count, Count, Count] = (3, 4, 6, 3)
    """Bottleneck blocks of res2, res3, res4 and res5: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3)
    ResNet-101."""
    width: Count = 64
    """Channels of the stem. The stages have 4, 8, 16 and 32 times as many."""
    stride_in_1x1: bool = False
    """Put the stride of a down-sampling block into its first 1x1 convolution (original MSRA
    weights) instead of its 3x3 one (torchvision)."""
    branch_after: BranchPosition = "res2"
    """The map after which every branch has its own weights. "res2" is the paper's; MGN's branches
    separate after the first block of res4."""
    global_stride: Literal[1, 2] = 1
    """Stride of res5 in the global branch; MGN's is 2."""
    global_classifier: Literal["reduced", "pooled"] = "reduced"
    """Features that classifiers of whole maps take: after the reduction, or before it as MGN's."""
    last_stage: Literal["res4", "res5"] = "res5"
    """Last stage of the backbone; "res4" leaves res5 out."""
    dtype: Arithmetic = "float32"
    """Arithmetic of the backbone. Parameters, statistics and outputs stay float32."""
    remat: bool = False
    """Recompute the inside of each block in the backward pass: less memory, more time."""
    batch_norm_momentum: Annotated[float, Range(0, 1, open_high=True)] = 0.9
    """Decay of the running statistics (0.9 is torch's momentum=0.1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            len(set(self.granularities)) == len(self.granularities) > 0,
            "ModelConfig.granularities must be one or more different stripe counts, one for each "
            f"branch, got {self.granularities}.",
        )
        _check(
            len(set(self.paths)) == len(self.paths),
            f"ModelConfig.paths must not repeat a path, got {self.paths}.",
        )
        _check(len(self.paths) > 0, "ModelConfig.paths is empty: a branch needs a path.")
        _check(
            self.fold_at in STAGES[: STAGES.index(self.last_stage) + 1],
            f"ModelConfig.fold_at is {self.fold_at!r}, but the network has the maps "
            f"{STAGES[: STAGES.index(self.last_stage) + 1]}.",
        )
        _check(
            self.global_stride == 1 or self.last_stage == "res5",
            f"ModelConfig.global_stride is {self.global_stride}, but last_stage "
            f"{self.last_stage!r} leaves res5 out.",
        )
        if self.global_classifier == "pooled":
            self._check_separate_classifiers()
        if self.receptive_stripes is not None:
            self._check_receptive_stripes(self.receptive_stripes)
        self._check_heights()

    def _check_separate_classifiers(self) -> None:
        """Checks that the classifiers of whole maps and those of stripes both have features."""
        have_stripes = any(granularity > 1 for granularity in self.granularities)
        whole = {"original": self.original_global, "receptive": self.receptive_global}
        have_whole = 1 in self.granularities or any(whole[path] for path in self.paths)
        _check(
            have_stripes and have_whole,
            "ModelConfig.global_classifier 'pooled' gives whole maps classifiers of their own, so "
            f"the model must have whole maps and stripes; granularities {self.granularities} with "
            f"original_global {self.original_global} and receptive_global {self.receptive_global} "
            f"have only {'stripes' if have_stripes else 'whole maps'}.",
        )

    def _check_receptive_stripes(self, counts: tuple[int, ...]) -> None:
        _check(
            len(counts) == len(self.granularities),
            "ModelConfig.receptive_stripes must give one stripe count for each branch of "
            f"granularities {self.granularities}, got {counts}.",
        )
        _check(
            "receptive" in self.paths,
            f"ModelConfig.receptive_stripes is {counts}, but paths has no receptive path.",
        )
        for granularity, stripes in zip(self.granularities, counts, strict=True):
            _check(
                granularity > 1 or stripes == 1,
                "ModelConfig.receptive_stripes must be 1 for a global branch, which has no "
                f"receptive path, got {counts} for granularities {self.granularities}.",
            )

    def _check_heights(self) -> None:
        height, width = self.image_size
        stride = map_stride(self.last_stage)
        _check(
            height % stride == 0 and width % stride == 0,
            f"ModelConfig.image_size must be multiples of {stride} (the network's stride), "
            f"got {self.image_size}.",
        )
        last = self.map_height(self.last_stage)
        for branch, stripes in enumerate(self.granularities):
            if "original" in self.paths and stripes > 1:
                _check(
                    last % stripes == 0,
                    f"ModelConfig.granularities asks for {stripes} stripes, which do not divide "
                    f"the last map's height {last} (image_size {self.image_size}).",
                )
            folds = self.fold_stripes(branch)
            if "receptive" in self.paths and folds > 1:
                folded = self.map_height(self.fold_at)
                # Strides after the fold must divide a stripe's height too, or the stripes of the
                # last map would differ from those of the original path.
                remaining = folded // last
                _check(
                    folded % (folds * remaining) == 0,
                    f"ModelConfig.receptive_stripes: {folds} stripes of the map at "
                    f"fold_at={self.fold_at!r} (height {folded}) must have heights divisible by "
                    f"the remaining stride {remaining}; image_size is {self.image_size}.",
                )

    def map_height(self, stage: FoldPosition) -> int:
        """Height in rows of the map that `stage` gives (res5 keeps res4's: its stride is 1)."""
        return self.image_size[0] // map_stride(stage)

    def fold_stripes(self, branch: int) -> int:
        """Stripes of the receptive path of branch number `branch`."""
        return (self.receptive_stripes or self.granularities)[branch]

    def uses_abp(self, path: PathName, train: bool) -> bool:
        """True if the stripes of `path` are balanced in training (`train`) or in evaluation."""
        timing = self.original_abp if path == "original" else self.receptive_abp
        return timing == "always" or (timing == "test" and not train)

    def stripe_pool(self, path: PathName, train: bool) -> Pooling:
        """Reduction within a stripe of `path` in training (`train`) or in evaluation."""
        in_training, in_evaluation = (
            (self.original_pool, self.original_test_pool)
            if path == "original"
            else (self.receptive_pool, self.receptive_test_pool)
        )
        return in_training if train else in_evaluation or in_training


@dataclass(frozen=True)
class RandomShiftingConfig(_Checked):
    """Random shifting augmentation (RSA, III-D): crop, resize, shift inside the box."""

    probability: Probability = 0.0
    """p: probability of applying RSA to an image. The paper states no value."""
    crop_probability: Probability = 0.5
    """p_c: probability of the crop step."""
    min_crop: Fraction = 0.7
    """r_c: the cropped height is U(r_c, 1) of the image's."""
    min_height: Fraction = 0.5
    """r_h^(min): the patch's height is scaled by U(r_h^(min), 1 / r_c drawn)."""
    min_width: Fraction = 0.5
    """r_w^(min): the patch's width is scaled by U(r_w^(min), 1)."""
    fill: Annotated[int, Range(0, 255)] = 127
    """Pixel value, 0 to 255, of the box outside the patch."""


@dataclass(frozen=True)
class RandomErasingConfig(_Checked):
    """Random erasing (Zhong et al., AAAI 2020): a random rectangle is overwritten."""

    probability: Probability = 0.0
    """Probability of erasing a rectangle."""
    min_area: Fraction = 0.02
    """Smallest share of the image's area."""
    max_area: Fraction = 0.4
    """Largest share of the image's area."""
    min_aspect: Fraction = 0.3
    """Smallest ratio of height to width; the largest is its inverse."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            self.min_area <= self.max_area,
            "RandomErasingConfig.min_area must not exceed max_area, "
            f"got {self.min_area} and {self.max_area}.",
        )


@dataclass(frozen=True)
class RandomCropConfig(_Checked):
    """Random cropping: pad on every side, then crop the original size."""

    probability: Probability = 0.0
    """Probability of padding and cropping an image."""
    padding: Annotated[float, Range(0, 1, open_high=True)] = 0.05
    """Padding on every side as a share of the image's height."""


@dataclass(frozen=True)
class ColorJitterConfig(_Checked):
    """Color jitter: brightness, contrast and saturation by independent random factors."""

    probability: Probability = 0.0
    """Probability of changing the colors."""
    brightness: Annotated[float, Range(0, 1)] = 0.2
    """Factors are U(1 - value, 1 + value)."""
    contrast: Annotated[float, Range(0, 1)] = 0.15
    """Factors are U(1 - value, 1 + value)."""
    saturation: Annotated[float, Range(0, 1)] = 0.15
    """Factors are U(1 - value, 1 + value)."""


@dataclass(frozen=True)
class CropResizeShiftConfig(_Checked):
    """RCRS, RSA's rival of Table VI: crop, resize to the full size, translate with loss."""

    probability: Probability = 0.0
    """Probability of applying it to an image."""
    min_crop: Fraction = 0.7
    """Height and width of the crop are independently U(min_crop, 1) of the image's."""
    max_shift: Annotated[float, Range(0, 1, open_high=True)] = 0.15
    """The translation is U(-max_shift, max_shift) of the height and of the width."""


@dataclass(frozen=True)
class AugmentConfig(_Checked):
    """Augmentation of training images, on the device."""

    flip_probability: Probability = 0.5
    """Probability of mirroring an image."""
    shifting: RandomShiftingConfig = field(
        default_factory=lambda: RandomShiftingConfig(probability=1.0)
    )
    erasing: RandomErasingConfig = field(default_factory=RandomErasingConfig)
    crop: RandomCropConfig = field(default_factory=RandomCropConfig)
    jitter: ColorJitterConfig = field(default_factory=ColorJitterConfig)
    crop_resize_shift: CropResizeShiftConfig = field(default_factory=CropResizeShiftConfig)


@dataclass(frozen=True)
class LossConfig(_Checked):
    """The total loss of Eq. 4."""

    margin: Annotated[float, Range(0)] | None = 0.6
    """Margin of the batch-hard triplet loss (Eq. 3); None is the soft margin."""
    triplet_weight: Annotated[float, Range(0)] = 1.0
    """Weight of every branch's triplet loss; 0 leaves it out."""
    triplet_normalized: bool = False
    """Compare features of length 1 in the triplet loss. The paper normalizes none."""
    triplet_features: Literal["branch", "global"] = "branch"
    """Features that the triplet loss compares: a branch's features concatenated, or each of its
    global features on its own (as MGN)."""
    triplet_reduction: Literal["mean", "sum"] = "mean"
    """Reduction over the anchors of the batch."""
    label_smoothing: Annotated[float, Range(0, 1, open_high=True)] = 0.0
    """Share of the target that is spread over all identities. The paper has none."""


@dataclass(frozen=True)
class OptimizerConfig(_Checked):
    """SGD with momentum, exponential warm-up and step decay (IV-A)."""

    learning_rate: Annotated[float, Range(0, open_low=True)] = 0.01
    """Learning rate of the backbone after the warm-up."""
    warmup_from: Annotated[float, Range(0, open_low=True)] = 1e-5
    """Learning rate of the first step."""
    warmup_epochs: Annotated[float, Range(0)] = 3.0
    """Epochs of exponential warm-up."""
    decay_epochs: tuple[Annotated[float, Range(0)], ...] = (30.0, 50.0)
    """The learning rate is multiplied by `decay_factor` after each of these epochs."""
    decay_factor: Annotated[float, Range(0, open_low=True)] = 0.1
    """See `decay_epochs`."""
    head_multiplier: Annotated[float, Range(0, open_low=True)] = 10.0
    """Learning rate of the reductions and classifiers relative to the backbone's."""
    momentum: Annotated[float, Range(0, 1, open_high=True)] = 0.9
    """Momentum of SGD (heavy ball, not Nesterov)."""
    weight_decay: Annotated[float, Range(0)] = 1e-3
    """Coupled L2 penalty on every parameter, as in torch's SGD."""
    decay_norms_and_biases: bool = True
    """Apply `weight_decay` to batch-norm parameters and biases too."""
    frozen_until: FrozenPosition | None = None
    """Keep the pretrained weights and running statistics of the backbone up to this map, whose
    batch norms then use the running statistics in training too; None trains everything."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            list(self.decay_epochs) == sorted(set(self.decay_epochs)),
            f"OptimizerConfig.decay_epochs must increase, got {self.decay_epochs}.",
        )


@dataclass(frozen=True)
class TrainConfig(_Checked):
    """Length, batches and devices of training."""

    epochs: Count = 60
    """Passes over all training images. The paper states no number."""
    num_ids: Count = 12
    """P: identities in a batch."""
    num_instances: Count = 4
    """K: images of each identity in a batch."""
    seed: Annotated[int, Range(0)] = 0
    """Seed of the initialization, of the batches and of the augmentation."""
    accumulate: Count = 1
    """Parts that a device's batch is cut into, one after another, to fit a small device. Each part
    holds whole identities and is normalized and mined on its own."""
    batch_norm: Literal["synchronized", "per_device"] = "synchronized"
    """Batch statistics of the global batch, or of each device's part."""
    mining: Literal["global", "per_device"] = "global"
    """Search the hardest triplets in the global batch, or in each device's part."""
    parallel: Literal["jit", "pmap"] = "jit"
    """Map the step over the devices by jit of shard_map on a sharded batch, or by pmap."""
    evaluate_every: Annotated[int, Range(0)] = 10
    """Epochs between evaluations; the end is always evaluated. 0: only the end."""
    checkpoint_every: Count = 1
    """Epochs between checkpoints."""
    keep_checkpoints: Count = 2
    """Latest checkpoints kept, in addition to the best."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(
            self.num_ids % self.accumulate == 0,
            f"TrainConfig.accumulate ({self.accumulate}) must divide num_ids ({self.num_ids}).",
        )


@dataclass(frozen=True)
class EvalConfig(_Checked):
    """Evaluation of a trained network."""

    flip: bool = True
    """Average each feature with that of the mirrored image, as in the paper."""
    batch_size: Count = 64
    """Images embedded at once, over all devices."""
    rerank: bool = False
    """Report k-reciprocal re-ranking in addition to the plain result."""
    k1: Count = 20
    """k1 of k-reciprocal re-ranking: neighbors considered."""
    k2: Count = 6
    """k2 of k-reciprocal re-ranking: neighbors averaged in local query expansion; 1 disables it."""
    lambda_value: Probability = 0.3
    """Weight of the original distance in the re-ranked one."""


@dataclass(frozen=True)
class ExperimentConfig(_Checked):
    """All that decides a result. What is not in here (paths, devices) must not change it."""

    dataset: str = "market1501"
    """Name of the dataset, with its variant where it has some: "cuhk03_np/labeled"."""
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    pretrained: str = "none"
    """Name and digest of the backbone weights that training starts from. Taken from --weights."""
