"""The public API: flat, complete in its stub, and free to import."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rmgl_jax


def test_import_loads_no_array_library():
    program = "import rmgl_jax, sys, json; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert {"jax", "numpy", "flax", "PIL", "tensorflow_datasets"}.isdisjoint(json.loads(output))


def test_stub_has_the_names_of_the_module():
    stub = ast.parse((Path(rmgl_jax.__file__).with_name("__init__.pyi")).read_text())
    stated = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert stated == rmgl_jax._MODULE_OF


@pytest.mark.parametrize("name", rmgl_jax._MODULE_OF)
def test_every_public_name_exists_and_is_documented(name):
    value = getattr(rmgl_jax, name)
    assert value.__doc__.strip()
    assert name in dir(rmgl_jax)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rmgl_jax.no_such_name
