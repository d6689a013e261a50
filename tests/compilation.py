"""XLA flags for the processes of tests: few optimizations, so that programs compile quickly."""

import os
from importlib.metadata import version

_FLAGS = "--xla_backend_optimization_level=0"
# These emitters take most of what is left. From 0.12 on XLA has no others.
if tuple(int(part) for part in version("jaxlib").split(".")[:2]) < (0, 12):
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
_OF_THE_CALLER = os.environ.get("XLA_FLAGS", "")


def xla_flags(devices: int) -> str:
    """XLA_FLAGS of a process with this many CPU devices. The last of two equal flags wins."""
    return f"{_FLAGS} {_OF_THE_CALLER} --xla_force_host_platform_device_count={devices}"
