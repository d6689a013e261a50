"""Settings of every test session: four CPU devices, strict ranks, repeatable examples."""

import gc
import os
import signal
from pathlib import Path

from tests.compilation import xla_flags

# Four CPU devices, so that sharding and collectives are exercised without an accelerator. Set
# before jax is imported.
os.environ["XLA_FLAGS"] = xla_flags(devices=4)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Compiled programs are kept between sessions, also for the processes that tests start.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# The warning that pyproject.toml ignores, in the processes that tests start.
os.environ.setdefault(
    "PYTHONWARNINGS", "ignore:Error reading persistent compilation cache entry:UserWarning"
)

import jax
from hypothesis import HealthCheck, settings

# Tests talk to servers on this machine only.
for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

# Shells start background jobs with SIGINT ignored, and processes inherit that: the tests that
# interrupt a process need the default.
signal.signal(signal.SIGINT, signal.default_int_handler)

jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing allocates so many objects that the default takes an eighth of the time.
gc.set_threshold(50_000, 20, 50)

# Deadlines would make shared, slow machines fail at random; the seeds are fixed so that a failure
# repeats.
settings.register_profile(
    "default", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")


def pytest_collection_modifyitems(items):
    """Tests that compile a network first: the short ones then fill the workers' last minute."""
    items.sort(key=lambda item: item.get_closest_marker("network") is None)
