"""Imports of the packages: without TensorFlow and PyTorch, and quick where `--help` needs it."""

import json
import subprocess
import sys

PROGRAM = """
import importlib, json, pkgutil, sys

def import_all(*packages):
    for name in packages:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, name + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
                yield module.name

list(import_all("experiments"))
slow = {"matplotlib", "orbax", "optax", "scipy.stats", "safetensors"} & set(sys.modules)
imported = list(import_all("rmgl_jax", "data_prep"))
forbidden = {"tensorflow", "torch"} & set(sys.modules)
print(json.dumps([imported, sorted(slow), sorted(forbidden)]))
"""


def test_imports_stay_clear_of_optional_and_slow_packages():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    imported, slow, forbidden = json.loads(result.stdout.splitlines()[-1])
    assert {"rmgl_jax.models.rmgl", "rmgl_jax.experiment.run"} < set(imported)
    # Run cards with all that their --help needs.
    assert slow == []
    assert forbidden == []
