"""Files with one flipped bit, which readers refuse or read as before."""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.errors import InputError


def assert_flips_are_noticed(
    content: bytes, read: Callable[[Path], Any], expected: Any, count: int = 200
) -> None:
    """Flips each of `count` random bits of a file; reading raises `InputError` or gives `expected`.

    Most flips must raise: only white space and digits beyond a number's precision may differ.
    """
    refused = 0
    bits = random.Random(0).sample(range(8 * len(content)), min(count, 8 * len(content)))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "file"
        for bit in bits:
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                found = read(path)
            except (InputError, UnicodeDecodeError):
                refused += 1
            else:
                assert found == expected, (bit, bytes(damaged[bit // 8 - 20 : bit // 8 + 20]))
    assert refused > 0.8 * len(bits)
