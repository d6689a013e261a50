"""Small networks for tests, with variables that need no compilation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from rmgl_jax.config import ModelConfig
from rmgl_jax.models.rmgl import RMGL

TINY = ModelConfig(num_classes=5, image_size=(96, 32), depth=(1, 1, 1, 1), width=4, embed_dim=8)


@functools.cache
def variable_shapes(config: ModelConfig) -> dict:
    """The variables of `RMGL(config)`, as shapes and dtypes."""
    images = jax.ShapeDtypeStruct((1, *config.image_size, 3), jnp.float32)
    return jax.eval_shape(RMGL(config).init, jax.random.key(0), images)


def random_variables(config: ModelConfig, seed: int = 0) -> dict:
    """Variables of `RMGL(config)`, with every array random and of a sensible size."""
    return random_like(variable_shapes(config), seed)


def random_like(shapes: dict, seed: int = 0) -> dict:
    """Random variables of a module, of the given shapes and dtypes."""
    random = np.random.default_rng(seed)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            values = random.normal(0, (2 / math.prod(leaf.shape[-4:-1])) ** 0.5, leaf.shape)
        elif name in ("scale", "var"):
            values = random.uniform(0.5, 1.5, leaf.shape)
        else:
            values = random.uniform(-0.2, 0.2, leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree.map_with_path(fill, shapes)


def random_images(batch: int, config: ModelConfig, seed: int = 1) -> jax.Array:
    """Normalized images of noise, `[B, H, W, 3]`."""
    shape = (batch, *config.image_size, 3)
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
