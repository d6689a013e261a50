"""Configures glibc's allocator to reuse the buffers that XLA's CPU programs free."""

import ctypes
import os
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

# Parameters of glibc's mallopt(3), and of Linux's madvise(2).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX, _MADV_HUGEPAGE = -1, -4, -8, 14
_HUGE_PAGE = 2 * 2**20


def keep_freed_memory() -> bool:
    """Keeps the memory that a step frees for the next step, in huge pages.

    XLA allocates the temporaries of a CPU program at every call. By default glibc maps such large
    blocks from the system each time and returns them afterwards, so that in every step the kernel
    clears all their pages again, 4 KiB at a time. benchmarks/LOG.md has the cost.

    Call it before JAX starts its devices, because their threads would use heaps of their own. It
    has an effect only on Linux with glibc, and only where JAX runs on CPUs.

    Returns:
        True if freed memory is kept from now on.
    """
    if not sys.platform.startswith("linux") or _has_accelerator():
        return False
    with suppress(AttributeError, OSError, ValueError):
        libc = ctypes.CDLL(None)
        os.confstr("CS_GNU_LIBC_VERSION")  # ValueError: another C library
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        # One heap; no block mapped outside it; its end never returned to the system.
        options = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
        if not all(libc.mallopt(name, value) for name, value in options):
            return False
        # Makes the heap's next pages huge. Addresses take no memory until they are written.
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        if block := libc.malloc(size):
            first = -(-block // _HUGE_PAGE) * _HUGE_PAGE
            libc.madvise(first, (block + size - first) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
            libc.free(block)
        return True
    return False


def _has_accelerator() -> bool:
    """True if JAX may find an accelerator; determined without starting JAX's backends."""
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if chosen:
        return chosen != "cpu"
    if entry_points(group="jax_plugins"):
        return True
    # libtpu alone is no sign of a TPU: it also compiles programs for others.
    devices = Path("/dev")
    has_tpu = any(devices.glob("accel[0-9]*")) or any(devices.glob("vfio/[0-9]*"))
    return has_tpu and find_spec("libtpu") is not None
