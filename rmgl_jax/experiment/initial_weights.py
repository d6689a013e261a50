"""Guard against training a published network from random weights by mistake."""

import os

from data_prep.errors import InputError
from rmgl_jax.config import ExperimentConfig, ModelConfig

_WIDTH = 64
_DEPTHS = ((3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3))  # ResNet-50, 101 and 152


def has_imagenet_weights(model: ModelConfig) -> bool:
    """True if ImageNet weights are published for the backbone of `model`."""
    return model.width == _WIDTH and model.depth in _DEPTHS


def check_initial_weights(
    config: ExperimentConfig, weights: str | os.PathLike[str] | None, from_scratch: bool
) -> None:
    """Checks that a network with published weights starts from weights, or from none on purpose.

    Raises:
        InputError: neither `weights` nor `from_scratch` is given, or both are. Or random weights
            would be frozen.
    """
    model, frozen_until = config.model, config.optimizer.frozen_until
    if weights is None and frozen_until is not None:
        raise InputError(
            f"--optimizer.frozen-until {frozen_until} would keep random weights: give the file of "
            "trained ones with --weights."
        )
    if weights is not None and from_scratch:
        raise InputError(f"--from-scratch contradicts --weights {weights}: give one of them.")
    if weights is None and not from_scratch and has_imagenet_weights(model):
        raise InputError(
            f"A ResNet of depth {model.depth} and width {model.width} requires ImageNet weights: "
            "give their file with --weights (torchvision's ResNet50_Weights.IMAGENET1K_V1 for the "
            "paper's ResNet-50), or --from-scratch for random weights."
        )
