"""Named streams of random numbers, so that every image is a pure function of its own key."""

import zlib

import numpy as np


def stream(seed: int, *key: int | str) -> np.random.Generator:
    """Makes a generator that depends only on `seed` and `key`, not on earlier draws.

    Args:
        seed: seed of the whole benchmark.
        *key: names and numbers of the drawn quantity, such as ("pose", pid, camera, index).
    """
    words = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in key]
    return np.random.default_rng([word & 0xFFFFFFFF for word in (seed, *words)])
