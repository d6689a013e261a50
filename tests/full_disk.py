"""A disk that is full for a while."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(size: int = 4096):
    """No file grows beyond `size` bytes, which fails as a full disk does: while it is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
