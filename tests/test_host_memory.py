"""Freed memory is kept: counted in page faults, in processes of their own."""

import os
import subprocess
import sys

import pytest

# What a step does: a large block is written and freed again, in one of XLA's threads.
PROGRAM = """
import resource, sys, threading
import numpy as np
from rmgl_jax.cpu.host_memory import keep_freed_pages

def fill():
    for _ in range(10):
        np.ones(2**24, np.float32)

def in_a_thread():
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()

kept = keep_freed_pages() if sys.argv[1] == "keep" else None
in_a_thread()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
in_a_thread()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode, **environment):
    """What `keep_freed_pages` returned, and the page faults of ten blocks of 64 MiB."""
    output = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return output[0], int(output[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has what it sets")
def test_freed_memory_is_kept():
    kept, faults = page_faults("keep", JAX_PLATFORMS="cpu")
    if kept == "False":
        pytest.skip("the C library is not glibc")
    _, plain = page_faults("plain")
    # 64 MiB are 16,384 pages, or 32 huge ones.
    assert plain > 300
    assert faults < 30


def test_nothing_is_set_for_an_accelerator():
    assert page_faults("keep", JAX_PLATFORMS="cuda")[0] == "False"
