"""The package stands without TensorFlow and without PyTorch."""

import json
import subprocess
import sys

PROGRAM = """
import importlib, json, pkgutil, sys
imported = []
for name in ("rmgl_jax", "data_prep", "experiments"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            imported.append(module.name)
forbidden = {"tensorflow", "torch"} & set(sys.modules)
print(json.dumps([imported, sorted(forbidden)]))
"""


def test_importing_everything_imports_neither_tensorflow_nor_torch():
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    imported, forbidden = json.loads(result.stdout.splitlines()[-1])
    assert "rmgl_jax.models.rmgl" in imported
    assert "rmgl_jax.models.pretrained" in imported
    assert forbidden == []
