"""Comparison of pytrees of arrays, for all tests."""

from typing import Any

import jax
import numpy as np


def assert_trees_close(found: Any, expected: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Asserts equal structure and equal leaves; a message names the leaf. Exact by default."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(found)
    expected_leaves, expected_structure = jax.tree.flatten(expected)
    assert structure == expected_structure
    for (path, leaf), other in zip(leaves, expected_leaves, strict=True):
        np.testing.assert_allclose(
            leaf, other, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path)
        )
