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
    """RMGL as trained in the paper: ResNet-50, 384x128, 60 epochs."""
    return ExperimentConfig(dataset=dataset)


def gpu(dataset: str) -> ExperimentConfig:
    """RMGL as trained in the paper, in bfloat16, for one GPU."""
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
    original, the global branch keeps the resolution of the last stage, and global features are
    classified after their reduction.
    """
    config = components(base, (1, 2, 3))
    return replace(
        config,
        model=replace(config.model, reduction_relu=True),
        loss=replace(config.loss, triplet_features="global", margin=1.2),
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


def reranked(
    overrides: Callable[[ExperimentConfig], ExperimentConfig],
) -> Callable[[ExperimentConfig], ExperimentConfig]:
    """Adds re-ranking to the overrides of a row."""

    def with_reranking(base: ExperimentConfig) -> ExperimentConfig:
        config = overrides(base)
        return replace(config, eval=replace(config.eval, rerank=True))

    return with_reranking
