"""Freed memory is kept: counted in page faults, in separate processes."""

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

# The memory use of a step: one of XLA's threads writes a large block and frees it.
PROGRAM = """
import resource, sys, threading
import numpy as np
from rmgl_jax.cpu import keep_freed_memory

def fill():
    for _ in range(10):
        np.ones(2**24, np.float32)

def in_a_thread():
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()

kept = keep_freed_memory()
in_a_thread()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
in_a_thread()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(**environment):
    """The result of `keep_freed_memory`, and the page faults of ten blocks of 64 MiB."""
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return output[0] == "True", int(output[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="has an effect on Linux only")
def test_keep_freed_memory_saves_page_faults_unless_switched_off():
    kept, faults = page_faults(JAX_PLATFORMS="cpu")
    if not kept:
        pytest.skip("the C library is not glibc")
    plainly_kept, plain_faults = page_faults(JAX_PLATFORMS="cpu", RMGL_CPU_KERNELS="0")
    # 64 MiB are 16,384 pages, or 32 huge ones.
    assert not plainly_kept
    assert plain_faults > 300
    assert faults < 30


def test_keep_freed_memory_changes_nothing_for_an_accelerator():
    kept, _ = page_faults(JAX_PLATFORMS="cuda")
    assert not kept


def test_keep_freed_memory_needs_a_tpu_and_not_only_its_compiler(tmp_path):
    kept, _ = page_faults(JAX_PLATFORMS="cpu")
    accelerators = entry_points(group="jax_plugins") or any(Path("/dev").glob("accel*"))
    if not kept or accelerators or any(Path("/dev").glob("vfio/[0-9]*")):
        pytest.skip("the C library is not glibc, or this machine may have an accelerator")
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").write_text("")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    kept, _ = page_faults(JAX_PLATFORMS="", PYTHONPATH=path)
    assert kept
