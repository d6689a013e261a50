"""Named configurations that several experiments share, each a change of the paper's."""

from dataclasses import replace

from rmgl_jax.config import (
    AugmentConfig,
    EvalConfig,
    ExperimentConfig,
    LossConfig,
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
    """A thin RMGL at 96x48 that two CPU cores train from scratch."""
    return ExperimentConfig(
        dataset=dataset,
        model=ModelConfig(
            image_size=(96, 48), depth=(1, 1, 1, 1), width=16, embed_dim=64, global_pool="max"
        ),
        augment=AugmentConfig(shifting=RandomShiftingConfig(probability=0.5)),
        loss=LossConfig(),
        optimizer=OptimizerConfig(
            learning_rate=0.02,
            head_multiplier=1.0,
            warmup_from=1e-3,
            warmup_epochs=1.0,
            decay_epochs=(round(0.6 * epochs), round(0.85 * epochs)),
            weight_decay=5e-4,
        ),
        train=TrainConfig(epochs=epochs, persons=16, images=4, evaluate_every=0),
        eval=EvalConfig(batch_size=128),
    )
