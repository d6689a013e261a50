"""The step as lowered for CUDA: nothing that exists only for CPUs is in it."""

import re
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from jax import export

from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.step import make_train_step, state_shapes
from tests.tiny import IMAGES, PERSONS, small_config

pytestmark = pytest.mark.network

# A 1x1 convolution is a matrix product of reshaped arrays; it takes its stride by slicing, whose
# gradient pads. What is chosen by platform is a "case" with one branch.
POINTWISE = {"convolution", "dot_general", "reshape", "transpose", "reverse"}
POINTWISE |= {"slice", "pad", "broadcast_in_dim", "constant", "case", "return"}


def step_operations(platform):
    """Number of the operations by name, in the step as exported for a platform.

    The network has convolutions that are wide enough for Winograd's method.
    """
    config = small_config()
    model = replace(config.model, width=64, image_size=(64, 32))
    config = replace(config, model=model)
    optimizer = make_optimizer(config.optimizer, 10)
    state = state_shapes(model, optimizer)
    size = PERSONS * IMAGES
    batch = {
        "images": jax.ShapeDtypeStruct((size, *model.image_size, 3), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((size,), jnp.int32),
    }
    step = make_train_step(config, 10).run
    exported = export.export(step, platforms=[platform])(state, batch, jax.random.key(0))
    return Counter(re.findall(r"stablehlo\.(\w+)", exported.mlir_module()))


def test_step_for_cuda_has_the_operations_of_the_plain_network(monkeypatch):
    found = step_operations("cuda")
    monkeypatch.setenv("RMGL_CPU_KERNELS", "0")
    plain = step_operations("cuda")

    differing = {name for name in found | plain if found[name] != plain[name]}
    assert differing <= POINTWISE
    products = ("convolution", "dot_general")
    assert sum(found[name] for name in products) == sum(plain[name] for name in products)
    assert found["select_and_scatter"] == 1
    assert found["optimization_barrier"] == 0
