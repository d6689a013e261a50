"""Configuration: one frozen dataclass per concern, checked when it is made.

Every field has a default, and the defaults together are RMGL as the paper trains it on
Market-1501. Variants are made with `dataclasses.replace`; the command line of the experiments is
derived from these classes, so the docstring under a field is also its `--help` text.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args, get_type_hints

from rmgl_jax.stages import STAGES, FoldPosition, map_stride

PathName = Literal["original", "receptive"]


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_probability(owner: str, name: str, value: float) -> None:
    _check(0.0 <= value <= 1.0, f"{owner}.{name} must be between 0 and 1, got {value}.")


@dataclass(frozen=True)
class ModelConfig:
    """The network. `ModelConfig()` is RMGL of the paper with Market-1501's 751 identities."""

    num_classes: int = 751
    """Identities of the training set: the width of every classifier."""
    image_size: tuple[int, int] = (384, 128)
    """Height and width of the input, in pixels."""
    granularities: tuple[int, ...] = (2, 3)
    """Stripes of each branch. 1 is a global branch: one path, one global feature."""
    paths: tuple[PathName, ...] = ("original", "receptive")
    """Paths of every branch over the same weights. ("original",) is the baseline of Table V,
    ("receptive",) its "only RP"."""
    fold_at: FoldPosition = "res2"
    """The map that the receptive path folds into stripes: the input, or the output of a stage.
    "res2" is the paper's choice, "input" is input and "res5" output partition (Fig. 9)."""
    receptive_stripes: tuple[int, ...] | None = None
    """Stripes of each branch's receptive path; None is as `granularities` (Fig. 8)."""
    original_global: bool = True
    """Whether the original path gives a global feature beside its stripes."""
    receptive_global: bool = True
    """Whether the receptive path gives a global feature beside its stripes (s = 0 in Eq. 4)."""
    abp: Literal["off", "test", "always"] = "always"
    """Activation balanced pooling: never, in evaluation only, or in training too."""
    abp_paths: tuple[PathName, ...] = ("original",)
    """Paths whose stripes are balanced. The receptive path's stripes are its partition."""
    uniform_pool: Literal["max", "mean"] = "max"
    """How a uniform stripe is pooled."""
    balanced_pool: Literal["max", "mean"] = "mean"
    """How a balanced stripe is pooled (Eq. 11: average)."""
    global_pool: Literal["max", "mean"] = "max"
    """How the whole map is pooled."""
    embed_dim: int = 256
    """Width D of every feature after its reduction."""
    reduction_relu: bool = False
    """Whether a ReLU follows the batch norm of a reduction."""
    depth: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Bottleneck blocks of res2, res3, res4 and res5. (3, 4, 6, 3) is ResNet-50."""
    width: int = 64
    """Channels of the stem. The stages have 4, 8, 16 and 32 times as many."""
    stride_in_1x1: bool = False
    """Stride of a down-sampling block in its first 1x1 convolution (original MSRA weights)
    rather than in its 3x3 one (torchvision)."""
    last_stage: Literal["res4", "res5"] = "res5"
    """Where the backbone ends; "res4" leaves the last stage out."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the backbone. Parameters, statistics and outputs stay float32."""
    remat: bool = False
    """Whether each block recomputes its inside in the backward pass: less memory, more time."""
    batch_norm_momentum: float = 0.9
    """Decay of the running statistics (0.9 is torch's momentum=0.1)."""

    def __post_init__(self) -> None:
        _check(self.num_classes > 0, f"num_classes must be positive, got {self.num_classes}.")
        _check(self.embed_dim > 0, f"embed_dim must be positive, got {self.embed_dim}.")
        _check(self.width > 0, f"width must be positive, got {self.width}.")
        _check(
            len(self.depth) == 4 and min(self.depth) > 0,
            f"depth must be four positive block counts, got {self.depth}.",
        )
        _check(
            len(self.granularities) > 0 and min(self.granularities) > 0,
            f"granularities must be one or more positive stripe counts, got {self.granularities}.",
        )
        _check(
            len(set(self.granularities)) == len(self.granularities),
            f"granularities must differ, one branch each, got {self.granularities}.",
        )
        for name in ("paths", "abp_paths"):
            value = getattr(self, name)
            unknown = set(value) - {"original", "receptive"}
            _check(not unknown, f"{name} may hold 'original' and 'receptive', got {value}.")
            _check(len(set(value)) == len(value), f"{name} must not repeat a path, got {value}.")
        _check(len(self.paths) > 0, "paths is empty: a branch needs at least one path.")
        hints = get_type_hints(type(self))
        for name in ("abp", "uniform_pool", "balanced_pool", "global_pool", "last_stage", "dtype"):
            value, allowed = getattr(self, name), get_args(hints[name])
            _check(value in allowed, f"{name} must be one of {allowed}, got {value!r}.")
        _check(
            0.0 <= self.batch_norm_momentum < 1.0,
            f"batch_norm_momentum must be in [0, 1), got {self.batch_norm_momentum}.",
        )
        _check(
            self.fold_at in STAGES[: STAGES.index(self.last_stage) + 1],
            f"fold_at is {self.fold_at!r}, but the network has the maps "
            f"{STAGES[: STAGES.index(self.last_stage) + 1]}.",
        )
        if self.receptive_stripes is not None:
            _check(
                len(self.receptive_stripes) == len(self.granularities)
                and min(self.receptive_stripes) > 0,
                "receptive_stripes must give one positive stripe count per branch of granularities "
                f"{self.granularities}, got {self.receptive_stripes}.",
            )
            _check(
                "receptive" in self.paths,
                f"receptive_stripes is {self.receptive_stripes}, but paths has no receptive path.",
            )
            for granularity, stripes in zip(
                self.granularities, self.receptive_stripes, strict=True
            ):
                _check(
                    granularity > 1 or stripes == 1,
                    "receptive_stripes must be 1 for a global branch, which has no receptive path, "
                    f"got {self.receptive_stripes} for granularities {self.granularities}.",
                )
        self._check_heights()

    def _check_heights(self) -> None:
        height, width = self.image_size
        _check(
            height > 0 and width > 0 and height % 16 == 0 and width % 16 == 0,
            f"image_size must be positive multiples of 16 (the network's stride), "
            f"got {self.image_size}.",
        )
        last = self.map_height(self.last_stage)
        for branch, stripes in enumerate(self.granularities):
            if "original" in self.paths and stripes > 1:
                _check(
                    last % stripes == 0,
                    f"granularities asks for {stripes} stripes, which do not divide the last map's "
                    f"height {last} (image_size {self.image_size}).",
                )
            folds = self.fold_stripes(branch)
            if "receptive" in self.paths and folds > 1:
                folded = self.map_height(self.fold_at)
                # Below the fold every stride must divide a stripe's height too, or the stripes
                # of the last map would not be those of the original path.
                remaining = folded // last
                _check(
                    folded % (folds * remaining) == 0,
                    f"receptive_stripes: {folds} stripes of the map at fold_at={self.fold_at!r} "
                    f"(height {folded}) must have heights divisible by the remaining stride "
                    f"{remaining}; image_size is {self.image_size}.",
                )

    def map_height(self, stage: FoldPosition) -> int:
        """Height in rows of the map that `stage` gives (res5 keeps res4's: its stride is 1)."""
        return self.image_size[0] // map_stride(stage)

    def fold_stripes(self, branch: int) -> int:
        """Stripes of the receptive path of branch number `branch`."""
        return (self.receptive_stripes or self.granularities)[branch]


@dataclass(frozen=True)
class RandomShiftingConfig:
    """Random shifting augmentation (RSA, III-D): crop, resize, shift inside the box."""

    probability: float = 0.0
    """p: how often RSA is applied at all. The paper's run uses 1."""
    crop_probability: float = 0.5
    """p_c: how often the crop step is applied."""
    min_crop: float = 0.7
    """r_c: the cropped height is U(r_c, 1) of the image's."""
    min_height: float = 0.5
    """r_h^(min): the patch's height is scaled by U(r_h^(min), 1 / r_c drawn)."""
    min_width: float = 0.5
    """r_w^(min): the patch's width is scaled by U(r_w^(min), 1)."""
    fill: int = 127
    """Value, of 255, of the box outside the patch."""

    def __post_init__(self) -> None:
        for name in ("probability", "crop_probability"):
            _check_probability("RandomShiftingConfig", name, getattr(self, name))
        for name in ("min_crop", "min_height", "min_width"):
            value = getattr(self, name)
            _check(
                0.0 < value <= 1.0, f"RandomShiftingConfig.{name} must be in (0, 1], got {value}."
            )
        _check(0 <= self.fill <= 255, f"RandomShiftingConfig.fill must be 0..255, got {self.fill}.")


@dataclass(frozen=True)
class RandomErasingConfig:
    """Random erasing (Zhong et al., AAAI 2020): a random rectangle is overwritten."""

    probability: float = 0.0
    """How often a rectangle is erased."""
    min_area: float = 0.02
    """Smallest share of the image's area."""
    max_area: float = 0.4
    """Largest share of the image's area."""
    min_aspect: float = 0.3
    """Smallest ratio of height to width; the largest is its inverse."""

    def __post_init__(self) -> None:
        _check_probability("RandomErasingConfig", "probability", self.probability)
        _check(
            0.0 < self.min_area <= self.max_area <= 1.0,
            "RandomErasingConfig needs 0 < min_area <= max_area <= 1, "
            f"got {self.min_area} and {self.max_area}.",
        )
        _check(
            0.0 < self.min_aspect <= 1.0,
            f"RandomErasingConfig.min_aspect must be in (0, 1], got {self.min_aspect}.",
        )


@dataclass(frozen=True)
class RandomCropConfig:
    """Random cropping: pad on every side, then crop the original size."""

    probability: float = 0.0
    """How often an image is padded and cropped."""
    padding: float = 0.05
    """Padding on every side as a share of the image's height."""

    def __post_init__(self) -> None:
        _check_probability("RandomCropConfig", "probability", self.probability)
        _check(
            0.0 <= self.padding < 1.0,
            f"RandomCropConfig.padding must be in [0, 1), got {self.padding}.",
        )


@dataclass(frozen=True)
class ColorJitterConfig:
    """Color jitter: brightness, contrast and saturation by independent random factors."""

    probability: float = 0.0
    """How often the colors are changed."""
    brightness: float = 0.2
    """Factors are U(1 - value, 1 + value)."""
    contrast: float = 0.15
    """Factors are U(1 - value, 1 + value)."""
    saturation: float = 0.15
    """Factors are U(1 - value, 1 + value)."""

    def __post_init__(self) -> None:
        _check_probability("ColorJitterConfig", "probability", self.probability)
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            _check(0.0 <= value <= 1.0, f"ColorJitterConfig.{name} must be in [0, 1], got {value}.")


@dataclass(frozen=True)
class CropResizeShiftConfig:
    """RCRS, RSA's rival of Table VI: crop, resize to the full size, translate with loss."""

    probability: float = 0.0
    """How often it is applied."""
    min_crop: float = 0.7
    """Height and width of the crop are independently U(min_crop, 1) of the image's."""
    max_shift: float = 0.15
    """The translation is U(-max_shift, max_shift) of the height and of the width."""

    def __post_init__(self) -> None:
        _check_probability("CropResizeShiftConfig", "probability", self.probability)
        _check(
            0.0 < self.min_crop <= 1.0,
            f"CropResizeShiftConfig.min_crop must be in (0, 1], got {self.min_crop}.",
        )
        _check(
            0.0 <= self.max_shift < 1.0,
            f"CropResizeShiftConfig.max_shift must be in [0, 1), got {self.max_shift}.",
        )


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training images, on the device. The default is the paper's."""

    flip_probability: float = 0.5
    """How often an image is mirrored."""
    shifting: RandomShiftingConfig = field(
        default_factory=lambda: RandomShiftingConfig(probability=1.0)
    )
    erasing: RandomErasingConfig = field(default_factory=RandomErasingConfig)
    crop: RandomCropConfig = field(default_factory=RandomCropConfig)
    jitter: ColorJitterConfig = field(default_factory=ColorJitterConfig)
    crop_resize_shift: CropResizeShiftConfig = field(default_factory=CropResizeShiftConfig)

    def __post_init__(self) -> None:
        _check_probability("AugmentConfig", "flip_probability", self.flip_probability)


@dataclass(frozen=True)
class LossConfig:
    """The total loss of Eq. 4."""

    margin: float | None = 0.6
    """Margin of the batch-hard triplet loss (Eq. 3); None is the soft margin."""
    triplet_weight: float = 1.0
    """Weight of every branch's triplet loss; 0 leaves it out."""
    triplet_features: Literal["branch", "global"] = "branch"
    """What the triplet loss compares: a branch's features concatenated, or each of its global
    features on its own (as MGN)."""
    triplet_reduction: Literal["mean", "sum"] = "mean"
    """Over the anchors of the batch."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all identities. The paper has none."""

    def __post_init__(self) -> None:
        _check(
            self.margin is None or self.margin >= 0,
            f"LossConfig.margin must be None or at least 0, got {self.margin}.",
        )
        _check(
            self.triplet_weight >= 0,
            f"LossConfig.triplet_weight must be at least 0, got {self.triplet_weight}.",
        )
        _check(
            0.0 <= self.label_smoothing < 1.0,
            f"LossConfig.label_smoothing must be in [0, 1), got {self.label_smoothing}.",
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """SGD with momentum, exponential warm-up and steps (IV-A)."""

    learning_rate: float = 0.01
    """Rate of the backbone after the warm-up."""
    warmup_from: float = 1e-5
    """Rate of the first step."""
    warmup_epochs: float = 3.0
    """Length of the exponential warm-up."""
    decay_epochs: tuple[float, ...] = (30.0, 50.0)
    """The rate is multiplied by `decay_factor` after each of these."""
    decay_factor: float = 0.1
    """See `decay_epochs`."""
    head_multiplier: float = 10.0
    """Rate of the reductions and classifiers relative to the backbone's."""
    momentum: float = 0.9
    """Momentum of SGD (heavy ball, not Nesterov)."""
    weight_decay: float = 1e-3
    """Coupled L2 on every parameter, as torch's SGD has it."""
    decay_norms_and_biases: bool = True
    """Whether `weight_decay` also acts on batch-norm parameters and biases."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "warmup_from", "decay_factor", "head_multiplier"):
            value = getattr(self, name)
            _check(value > 0, f"OptimizerConfig.{name} must be positive, got {value}.")
        for name in ("warmup_epochs", "weight_decay"):
            value = getattr(self, name)
            _check(value >= 0, f"OptimizerConfig.{name} must be at least 0, got {value}.")
        _check(
            0.0 <= self.momentum < 1.0,
            f"OptimizerConfig.momentum must be in [0, 1), got {self.momentum}.",
        )
        _check(
            list(self.decay_epochs) == sorted(set(self.decay_epochs)),
            f"OptimizerConfig.decay_epochs must increase, got {self.decay_epochs}.",
        )


@dataclass(frozen=True)
class TrainConfig:
    """How the network is trained."""

    epochs: int = 60
    """Passes over all training images."""
    num_ids: int = 12
    """P: identities in a batch."""
    num_instances: int = 4
    """K: images of each identity in a batch."""
    seed: int = 0
    """Of the initialization, of the batches and of the augmentation."""
    accumulate: int = 1
    """Parts a device's batch is cut into, one after another, to fit a small one. Each part holds
    whole persons and is normalized and mined on its own."""
    batch_norm: Literal["synchronized", "per_device"] = "synchronized"
    """Whether batch statistics are those of the global batch or of each device's part."""
    mining: Literal["global", "per_device"] = "global"
    """Whether the triplet loss looks for its hardest examples in the global batch."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How the step is mapped over the devices: jit of shard_map on a sharded batch, or pmap."""
    evaluate_every: int = 10
    """Epochs between evaluations; the end is always evaluated. 0: only the end."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    keep_checkpoints: int = 2
    """Latest checkpoints kept, beside the best."""

    def __post_init__(self) -> None:
        for name in ("epochs", "num_ids", "num_instances", "accumulate", "checkpoint_every"):
            value = getattr(self, name)
            _check(value > 0, f"TrainConfig.{name} must be positive, got {value}.")
        for name in ("evaluate_every", "seed"):
            value = getattr(self, name)
            _check(value >= 0, f"TrainConfig.{name} must be at least 0, got {value}.")
        _check(
            self.keep_checkpoints > 0,
            f"TrainConfig.keep_checkpoints must be positive, got {self.keep_checkpoints}.",
        )
        _check(
            self.num_ids % self.accumulate == 0,
            f"TrainConfig.accumulate ({self.accumulate}) must divide the batch's persons "
            f"({self.num_ids}).",
        )


@dataclass(frozen=True)
class EvalConfig:
    """How a trained network is evaluated."""

    flip: bool = True
    """Whether an image's feature is the mean of its own and its mirror's, as in the paper."""
    batch_size: int = 64
    """Images embedded at once, over all devices."""
    rerank: bool = False
    """Whether k-reciprocal re-ranking is reported beside the plain result."""
    k1: int = 20
    """Neighbors of re-ranking."""
    k2: int = 6
    """Neighbors of its query expansion; 1 leaves that out."""
    lambda_value: float = 0.3
    """Weight of the original distance in the re-ranked one."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "k1", "k2"):
            value = getattr(self, name)
            _check(value > 0, f"EvalConfig.{name} must be positive, got {value}.")
        _check(
            0.0 <= self.lambda_value <= 1.0,
            f"EvalConfig.lambda_value must be in [0, 1], got {self.lambda_value}.",
        )


@dataclass(frozen=True)
class ExperimentConfig:
    """All that decides a result. What is not in here (paths, devices) must not change it."""

    dataset: str = "market1501"
    """Name of the data set, with its variant where it has some: "cuhk03_np/labeled"."""
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    pretrained: str = "none"
    """Name and digest of the backbone weights training starts from; filled in from --weights."""
