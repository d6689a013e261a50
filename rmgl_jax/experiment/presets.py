"""Named configurations that several experiments share, each a change of the paper's."""

from collections.abc import Callable
from dataclasses import replace

from rmgl_jax.config import (
    AugmentConfig,
    EvalConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
    PathName,
    RandomShiftingConfig,
    TrainConfig,
)


def paper(dataset: str) -> ExperimentConfig:
    """RMGL as the paper trains it: ResNet-50, 384x128, 60 epochs."""
    return ExperimentConfig(dataset=dataset)


def gpu(dataset: str) -> ExperimentConfig:
    """The paper's run in bfloat16, for one GPU."""
    base = paper(dataset)
    return replace(
        base,
        model=replace(base.model, dtype="bfloat16"),
        eval=replace(base.eval, batch_size=256),
    )


def small(dataset: str, epochs: int) -> ExperimentConfig:
    """A thin two-stripe RMGL at 96x48 that two CPU cores train from scratch.

    One branch with both paths (the row "2-stripe+RP+ABP+RSA" of Table V), one block a stage, a
    quarter of the width. RSA acts on half of the images, since so few epochs overfit little.
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
    """A network of a few channels, for a few images: to see that everything works."""
    base = small(dataset, epochs=3)
    return replace(
        base,
        model=replace(base.model, width=4, embed_dim=16),
        train=replace(base.train, num_ids=8),
    )


def of_sweeps(dataset: str) -> dict[str, ExperimentConfig]:
    """The configurations that tables and figures start from; `dataset` is the paper's."""
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
) -> ExperimentConfig:
    """Chosen components of RMGL, and no others; without any it is the baseline of Table V.

    Args:
        base: what else is to be trained, and how.
        granularities: stripes of each branch.
        paths: both are "+RP", the receptive one alone is "only RP".
        abp: activation balanced pooling, of the original path.
        rsa: random shifting, with the base's probability, or always if that is 0.
    """
    shifting = base.augment.shifting
    probability = (shifting.probability or 1.0) if rsa else 0.0
    return replace(
        base,
        model=replace(
            base.model, granularities=granularities, paths=paths, abp="always" if abp else "off"
        ),
        augment=replace(base.augment, shifting=replace(shifting, probability=probability)),
    )


def rmgl(base: ExperimentConfig) -> ExperimentConfig:
    """Two-branch RMGL with all components, whatever the base has of them."""
    return components(base, (2, 3), ("original", "receptive"), abp=True, rsa=True)


def mgn(base: ExperimentConfig) -> ExperimentConfig:
    """MGN (Wang et al., ACM MM 2018) in RMGL's network, under the base's budget.

    A global branch beside those of 2 and 3 stripes, one path, no ABP and no RSA; a ReLU after the
    reduction; a triplet loss on each global feature, of margin 1.2. Unlike MGN's own, the global
    branch keeps the last stage's resolution, and the global features are classified after their
    reduction.
    """
    config = components(base, (1, 2, 3))
    return replace(
        config,
        model=replace(config.model, reduction_relu=True),
        loss=replace(config.loss, triplet_features="global", margin=1.2),
    )


def pcb(base: ExperimentConfig) -> ExperimentConfig:
    """PCB (Sun et al., ECCV 2018) in RMGL's network, under the base's budget.

    Six stripes pooled by the average, no global feature, cross-entropy alone.
    """
    config = components(base, (6,))
    return replace(
        config,
        model=replace(config.model, original_global=False, uniform_pool="mean"),
        loss=replace(config.loss, triplet_weight=0.0),
    )


def reranked(
    base: ExperimentConfig, change: Callable[[ExperimentConfig], ExperimentConfig]
) -> ExperimentConfig:
    """A changed base that is re-ranked too."""
    config = change(base)
    return replace(config, eval=replace(config.eval, rerank=True))
