"""Speed of training: images a second, and model FLOPs utilization from a device's peak."""

import time
from dataclasses import replace
from typing import Any

import jax

from rmgl_jax.config import ExperimentConfig

# Dense peak of one device in FLOP/s: matrix units at bfloat16 inputs, and at float32 as XLA runs it
# by default (TF32 on NVIDIA). From the makers' data sheets, without sparsity.
_PEAKS: dict[str, tuple[float, float]] = {
    # substring of device_kind: (bfloat16, float32)
    "H200": (989e12, 494e12),
    "H100": (989e12, 494e12),
    "A100": (312e12, 156e12),
    "L40S": (362e12, 183e12),
    "V100": (125e12, 15.7e12),
    "TPU v6": (918e12, 459e12),
    "TPU v5 lite": (197e12, 98e12),
    "TPU v5e": (197e12, 98e12),
    "TPU v5": (459e12, 229e12),  # v5p; JAX calls it "TPU v5"
    "TPU v4": (275e12, 137e12),
}


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Returns the peak of one device in FLOP/s, or None if unknown, as for CPUs."""
    for name, (half, single) in _PEAKS.items():
        if name in device_kind:
            return half if dtype == "bfloat16" else single
    return None


def counted(config: ExperimentConfig) -> ExperimentConfig:
    """The configuration whose step has the operations of the model and of the batch, and no others.

    Without recomputation, which MFU does not count, and in one part: XLA counts a loop's body once.
    """
    return replace(
        config,
        model=replace(config.model, remat=False),
        train=replace(config.train, accumulate=1),
    )


def step_flops(lowered: jax.stages.Lowered, shards: int) -> float | None:
    """Counts the floating-point operations of one step on all devices, or None if unknown.

    Args:
        lowered: the step of a configuration that is `counted`, lowered but not compiled: nothing
            is fused yet.
        shards: `ParallelStep.flops_shards`.
    """
    analysis: Any = lowered.cost_analysis()
    flops = analysis.get("flops") if isinstance(analysis, dict) else None
    return flops * shards if flops and flops > 0 else None


class Clock:
    """Measures images a second and model FLOPs utilization between reported steps."""

    def __init__(self, images: int, flops: float | None, peak: float | None) -> None:
        self._images, self._flops = images, flops
        self._peak = peak and peak * jax.device_count()
        self._last: float | None = None

    def restart(self) -> None:
        """Starts over, after something other than a step took time."""
        self._last = None

    def tick(self) -> dict[str, float]:
        """Returns the speed since the previous call; nothing at the first."""
        now, last = time.perf_counter(), self._last
        self._last = now
        if last is None:
            return {}
        seconds = max(now - last, 1e-9)
        speed = {"images_per_second": self._images / seconds}
        if self._flops and self._peak:
            speed["mfu"] = self._flops / seconds / self._peak
        return speed
