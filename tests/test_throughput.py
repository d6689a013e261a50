"""Peaks of devices by the names that JAX gives them."""

from dataclasses import replace

import jax
import pytest

from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.step import make_train_step, state_shapes
from rmgl_jax.training.throughput import counted, peak_flops, step_flops
from tests.tiny import small_config


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),  # v5e
        ("TPU v5", 459e12),  # v5p
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),  # v6e
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("cpu", None),
    ],
)
def test_peak_flops_by_the_name_of_the_device(kind, peak):
    assert peak_flops(kind, "bfloat16") == peak


def flops(config):
    """Floating-point operations of the step on 16 images."""
    step = make_train_step(config, 10)
    state = state_shapes(config.model, make_optimizer(config.optimizer, 10))
    batch = {
        "images": jax.ShapeDtypeStruct((16, 96, 32, 3), "uint8"),
        "labels": jax.ShapeDtypeStruct((16,), "int32"),
    }
    return step_flops(step.run.lower(state, batch, jax.random.key(0)), step.flops_shards)


@pytest.mark.network
def test_operations_are_those_of_the_model_and_the_batch():
    """However the step computes them: in parts, or some of them twice."""
    plain = small_config(num_ids=8)
    accumulated = small_config(num_ids=8, accumulate=2)
    remat = replace(plain, model=replace(plain.model, remat=True))
    assert counted(accumulated) == counted(remat) == counted(plain) == plain
    assert flops(accumulated) < 0.6 * flops(plain)  # XLA counts one part.


@pytest.mark.network
def test_frozen_stages_have_no_backward_pass():
    counts = []
    for frozen_until in (None, "res2", "res4"):
        config = small_config(num_ids=8)
        optimizer = replace(config.optimizer, frozen_until=frozen_until)
        counts.append(flops(replace(config, optimizer=optimizer)))
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] < 0.7 * counts[0]
