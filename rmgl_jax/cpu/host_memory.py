"""How the C library hands out the memory that XLA's CPU programs work in."""

import ctypes
import os
import sys
from contextlib import suppress
from importlib.metadata import entry_points
from importlib.util import find_spec

# Parameters of glibc's mallopt(3), and of Linux's madvise(2).
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX, _MADV_HUGEPAGE = -1, -4, -8, 14
_HUGE_PAGE = 2 * 2**20


def keep_freed_pages() -> bool:
    """Lets this process keep the memory that a step frees, in huge pages, for the next step.

    XLA allocates the temporaries of a CPU program anew at every call. By default glibc maps so
    large a block from the system each time and gives it back after, so that every step has the
    kernel clear all its pages again, 4 KiB at a time: docs/performance.md has what this costs.

    It must be called before JAX starts its devices, whose threads would get heaps of their own. It
    does nothing but on Linux with glibc, and where JAX would run on an accelerator.

    Returns:
        Whether freed memory is kept from here on.
    """
    if not sys.platform.startswith("linux") or _has_accelerator():
        return False
    with suppress(AttributeError, OSError, ValueError):
        libc = ctypes.CDLL(None)
        os.confstr("CS_GNU_LIBC_VERSION")  # ValueError: another C library
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        # One heap, nothing of it mapped apart, its end never given back.
        options = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
        if not all(libc.mallopt(name, value) for name, value in options):
            return False
        # The heap's next pages shall be huge ones. Addresses cost nothing until they are written.
        size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
        if block := libc.malloc(size):
            first = -(-block // _HUGE_PAGE) * _HUGE_PAGE
            libc.madvise(first, (block + size - first) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
            libc.free(block)
        return True
    return False


def _has_accelerator() -> bool:
    """Whether JAX may find one, told without starting it."""
    chosen = os.environ.get("JAX_PLATFORMS", "")
    if chosen:
        return chosen != "cpu"
    return bool(entry_points(group="jax_plugins")) or find_spec("libtpu") is not None
