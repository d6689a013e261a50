"""The heads: N reductions and N classifiers, each as one operation with an axis of N."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from rmgl_jax.models.resnet import ModuleFactory

# The leading axis of the kernels is the head, not a fan.
_he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal", batch_axis=(0,))


class Reduction(nn.Module):
    """N 1x1 convolutions with batch norm, one for each pooled vector: `[B, N, C] -> [B, N, D]`.

    The convolutions have no bias; the batch norm that follows has one.
    """

    features: int
    """D, the width of a feature."""
    norm: ModuleFactory
    """Makes the batch norm, over the batch for each entry of the axes N and D."""
    relu: bool = False
    """Apply a ReLU after the batch norm."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Reduces pooled vectors to features."""
        _, heads, channels = x.shape
        kernel = self.param("kernel", _he_normal, (heads, channels, self.features))
        x = jnp.einsum("bnc,ncd->bnd", x, kernel)
        x = self.norm(name="bn")(x, use_running_average=not train)
        return nn.relu(x) if self.relu else x


class Classifier(nn.Module):
    """N linear layers, one for each feature: `[B, N, D] -> [B, N, classes]`."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Computes the logits of every feature."""
        _, heads, features = x.shape
        shape = (heads, features, self.classes)
        kernel = self.param("kernel", nn.initializers.normal(0.001), shape)
        bias = self.param("bias", nn.initializers.zeros, (heads, self.classes))
        return jnp.einsum("bnd,ndk->bnk", x, kernel) + bias[None]
