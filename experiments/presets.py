"""Named configurations that several experiments share, each a change of the paper's."""

from dataclasses import replace

from rmgl_jax.config import (
    AugmentConfig,
    EvalConfig,
    ExperimentConfig,
    ModelConfig,
    OptimizerConfig,
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
        train=TrainConfig(epochs=epochs, persons=16, images=4, evaluate_every=epochs // 3),
        eval=EvalConfig(batch_size=128),
    )
