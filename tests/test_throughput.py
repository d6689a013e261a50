"""Peaks of devices by the names that JAX gives them."""

import pytest

from rmgl_jax.training.throughput import peak_flops


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
