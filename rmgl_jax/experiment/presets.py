"""Named configurations (presets), and the changes that tables and figures make to them."""

from collections.abc import Callable
from dataclasses import replace

from rmgl_jax.config import (
    AugmentConfig,
    EvalConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    PathName,
    Pooling,
    RandomShiftingConfig,
    TrainConfig,
)

# Smaller training sets need more epochs.
_CPU_EPOCHS = {"market1501": 24, "dukemtmc_reid": 30, "cuhk03_np": 60, "msmt17": 15}


def paper(dataset: str) -> ExperimentConfig:
    """RMGL with the paper's settings, and ours where it states none: ResNet-50, 384x128, 60 epochs.

    The number of epochs and RSA's probability are ours; see docs/decisions.md.
    """
    return ExperimentConfig(dataset=dataset)


def gpu(dataset: str) -> ExperimentConfig:
    """`paper` in bfloat16, for one GPU."""
    base = paper(dataset)
    return replace(
        base,
        model=replace(base.model, dtype="bfloat16"),
        eval=replace(base.eval, batch_size=256),
    )


def small(dataset: str, epochs: int) -> ExperimentConfig:
    """A thin two-stripe RMGL at 96x48 that trains from scratch on two CPU cores.

    It has one branch with both paths (the row "2-stripe+RP+ABP+RSA" of Table V), one block per
    stage, and a quarter of the width. RSA acts on half of the images, since so few epochs overfit
    little.
    """
    return ExperimentConfig(
        dataset=dataset,
        model=ModelConfig(
            image_size=(96, 48), granularities=(2,), depth=(1, 1, 1, 1), width=16, embed_dim=128
        ),
        augment=AugmentConfig(shifting=RandomShiftingConfig(probability=0.5)),
        optimizer=OptimizerConfig(
            learning_rate=0.03,
            head_multiplier=1.0,
            warmup_from=1e-3,
            warmup_epochs=1.0,
            decay_epochs=(round(0.6 * epochs), round(0.85 * epochs)),
            weight_decay=5e-4,
        ),
        train=TrainConfig(epochs=epochs, num_ids=16, num_instances=4, evaluate_every=epochs // 3),
        eval=EvalConfig(batch_size=128),
    )


def cpu_pretrained(dataset: str) -> ExperimentConfig:
    """ResNet-50 up to res4 at 128x64 with one branch of two stripes, 5 epochs, for two CPU cores.

    It starts from `--weights` of the original (MSRA) ResNet-50, of which conv1 to layer3 are used.
    RSA acts on half of the images.
    """
    base = paper(dataset)
    return replace(
        with_rsa(base, 0.5),
        model=replace(
            base.model,
            image_size=(128, 64),
            granularities=(2,),
            stride_in_1x1=True,
            last_stage="res4",
        ),
        optimizer=replace(base.optimizer, warmup_epochs=0.5, decay_epochs=(3.0, 4.0)),
        train=replace(base.train, epochs=5, num_ids=16),
    )


def tiny(dataset: str) -> ExperimentConfig:
    """A network of a few channels, for a quick check on a few images."""
    base = small(dataset, epochs=3)
    return replace(
        base,
        model=replace(base.model, width=4, embed_dim=16),
        train=replace(base.train, num_ids=8),
    )


def presets_for(dataset: str) -> dict[str, ExperimentConfig]:
    """Presets of a dataset by name; the first is the default.

    Args:
        dataset: any name that `data_prep.prepare_dataset` accepts. Presets of "synthetic" choose
            its variant (demo, tiny or full); those of "synthetic/NAME" keep it, and the preset of
            that name is the default.
    """
    family, _, variant = dataset.partition("/")
    if family == "synthetic":
        demo = small("synthetic/demo", epochs=24)
        found = {
            "demo": demo,
            "tiny": tiny("synthetic/tiny"),
            "mgn": mgn(demo),
            "pcb": pcb(demo),
            "paper": paper("synthetic/full"),
            "cpu_pretrained": cpu_pretrained("synthetic/full"),
        }
        if variant:
            names = sorted(found, key=lambda name: name != variant)
            found = {name: replace(found[name], dataset=dataset) for name in names}
        return found
    cpu = small(dataset, epochs=_CPU_EPOCHS.get(family, 24))
    return {
        "paper": paper(dataset),
        "gpu": gpu(dataset),
        "cpu": cpu,
        "cpu_pretrained": cpu_pretrained(dataset),
        "mgn": mgn(paper(dataset)),
        "pcb": pcb(paper(dataset)),
        "mgn_cpu": mgn(cpu),
        "pcb_cpu": pcb(cpu),
    }


def sweep_presets(dataset: str) -> dict[str, ExperimentConfig]:
    """Presets of tables and figures by name.

    Args:
        dataset: dataset of the presets `paper` and `gpu`.
    """
    return {
        "paper": paper(dataset),
        "gpu": gpu(dataset),
        "demo": small("synthetic/demo", epochs=24),
        "tiny": tiny("synthetic/tiny"),
    }


def components(
    base: ExperimentConfig,
    granularities: tuple[int, ...],
    paths: tuple[PathName, ...] = ("original",),
    abp: bool = False,
    rsa: bool = False,
    pool: Pooling | None = None,
) -> ExperimentConfig:
    """Selects components of RMGL. Without any of them it is the baseline of Table V.

    Args:
        base: configuration of everything else.
        granularities: stripes of each branch.
        paths: both are "+RP", the receptive one alone is "only RP".
        abp: balance the stripes of the original path, in training and in evaluation.
        rsa: use random shifting with the base's probability, or with 1 if that is 0.
        pool: reduction within a stripe of the original path; None is the mean with `abp` (Eq. 11)
            and the maximum without.
    """
    probability = base.augment.shifting.probability or 1.0
    return replace(
        with_rsa(base, probability if rsa else 0.0),
        model=replace(
            base.model,
            granularities=granularities,
            paths=paths,
            original_abp="always" if abp else "off",
            original_pool=pool or ("mean" if abp else "max"),
        ),
    )


def with_rsa(config: ExperimentConfig, probability: float) -> ExperimentConfig:
    """Sets the probability of random shifting, 0 to 1."""
    shifting = replace(config.augment.shifting, probability=probability)
    return replace(config, augment=replace(config.augment, shifting=shifting))


def rmgl(base: ExperimentConfig) -> ExperimentConfig:
    """Two-branch RMGL with all components, regardless of those of the base."""
    return components(base, (2, 3), ("original", "receptive"), abp=True, rsa=True)


def mgn(base: ExperimentConfig) -> ExperimentConfig:
    """MGN (Wang et al., ACM MM 2018) in RMGL's network, with the budget of the base.

    It has a global branch and branches of 2 and 3 stripes, one path, no ABP and no RSA, a ReLU
    after the reduction, and a triplet loss with margin 1.2 on each global feature. Unlike in the
    original, branches separate after res2, the global branch keeps the resolution of the last
    stage, and global features are classified after their reduction; see `mgn_as_published`.
    """
    config = components(base, (1, 2, 3))
    return replace(
        config,
        model=replace(config.model, reduction_relu=True),
        loss=replace(config.loss, triplet_features="global", margin=1.2),
    )


def mgn_as_published(base: ExperimentConfig) -> ExperimentConfig:
    """MGN as its authors describe it: network, batches, epochs, rates and weight decay.

    Branches separate after the first block of res4, res5 has stride 2 in the global branch, and
    global features are classified before their reduction. From the 60 epochs of `paper`: 80 epochs,
    a tenth of the rate after 40 and 60, one rate for all parameters, no warm-up, weight decay 5e-4,
    16 x 4 images. Other bases scale the epochs. Triplets are those of the hardest examples.
    """
    config = mgn(base)
    epochs = round(base.train.epochs * 80 / 60)
    return replace(
        config,
        model=replace(
            config.model, branch_after="res4_1", global_stride=2, global_classifier="pooled"
        ),
        optimizer=replace(
            config.optimizer,
            warmup_epochs=0.0,
            decay_epochs=(epochs / 2, epochs * 3 / 4),
            head_multiplier=1.0,
            weight_decay=5e-4,
        ),
        train=replace(config.train, epochs=epochs, num_ids=16, num_instances=4),
    )


def pcb(base: ExperimentConfig) -> ExperimentConfig:
    """PCB (Sun et al., ECCV 2018) in RMGL's network, with the budget of the base.

    It has six average-pooled stripes, no global feature, and only the cross-entropy loss.
    """
    config = components(base, (6,), pool="mean")
    return replace(
        config,
        model=replace(config.model, original_global=False),
        loss=replace(config.loss, triplet_weight=0.0),
    )


def pcb_as_published(base: ExperimentConfig) -> ExperimentConfig:
    """PCB as its authors train it: batches of 64, rates and weight decay.

    From the 60 epochs of `paper`: a tenth of the rate after 40, ten times the rate for the heads,
    no warm-up, weight decay 5e-4. Other bases scale the epochs. The batches hold 16 x 4 images
    instead of 64 random ones, the reductions have a batch norm, and the embedding consists of the
    reduced features (H in its paper; G are those before the reduction).
    """
    config = pcb(base)
    return replace(
        config,
        optimizer=replace(
            config.optimizer,
            warmup_epochs=0.0,
            decay_epochs=(base.train.epochs * 2 / 3,),
            head_multiplier=10.0,
            weight_decay=5e-4,
        ),
        train=replace(config.train, num_ids=16, num_instances=4),
    )


def reranked(
    overrides: Callable[[ExperimentConfig], ExperimentConfig],
) -> Callable[[ExperimentConfig], ExperimentConfig]:
    """Adds re-ranking to the overrides of a row."""

    def with_reranking(base: ExperimentConfig) -> ExperimentConfig:
        config = overrides(base)
        return replace(config, eval=replace(config.eval, rerank=True))

    return with_reranking
