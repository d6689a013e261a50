"""A network with batch norm folded into its kernels gives the features of the network."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from rmgl_jax.evaluation.embedding import inference_variables
from rmgl_jax.models.folding import batch_norm_name, fold_batch_norm
from rmgl_jax.models.rmgl import RMGL
from tests.tiny_model import TINY, random_images, random_variables, variable_shapes
from tests.trees import assert_trees_close

pytestmark = pytest.mark.network


def features(config, variables, images, folded=False):
    network = RMGL(config, folded=folded)
    return jax.jit(lambda v, x: network.apply(v, x, method="part_features"))(variables, images)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_folded_network_gives_the_same_features(dtype):
    config = replace(
        TINY, dtype=dtype, stride_in_1x1=True, reduction_relu=True, original_abp="always"
    )
    variables, images = random_variables(config), random_images(3, config)
    expected = features(config, variables, images)
    folded = inference_variables(config, variables)
    found = features(config, folded, images, folded=True)
    tolerance = {"float32": 1e-5, "bfloat16": 4e-2}[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=tolerance)
    assert folded["params"]["backbone"]["stem"]["conv"]["kernel"].dtype == dtype
    assert folded["params"]["reduction"]["kernel"].dtype == np.float32


def test_fold_batch_norm_keeps_a_kernel_and_a_bias_for_each_batch_norm():
    shapes = variable_shapes(TINY)
    folded = fold_batch_norm(random_variables(TINY))
    assert folded.keys() == {"params"}
    assert folded["params"].keys() == {"backbone", "reduction"}
    count = len(jax.tree.leaves(shapes["batch_stats"])) // 2
    assert len(jax.tree.leaves(folded)) == 2 * count
    norm = folded["params"]["reduction"]["bn"]["bias"]
    assert norm.shape == shapes["params"]["reduction"]["bn"]["bias"].shape


def test_fold_batch_norm_of_identity_leaves_kernels():
    variables = random_variables(TINY)
    ones, zeros = np.ones_like, np.zeros_like
    norms = {
        "params": {"scale": ones, "bias": zeros},
        "batch_stats": {"mean": zeros, "var": lambda x: ones(x) - np.float32(1e-5)},
    }

    def identity(path, leaf):
        change = norms[path[0].key].get(path[-1].key)
        is_norm = any("bn" in getattr(part, "key", "") for part in path)
        return change(leaf) if change and is_norm else leaf

    folded = fold_batch_norm(jax.tree.map_with_path(identity, variables))
    assert_trees_close(
        folded["params"]["backbone"]["local2_res3"]["block1"]["conv2"],
        jax.device_get(variables["params"]["backbone"]["local2_res3"]["block1"]["conv2"]),
        rtol=1e-7,
    )


@pytest.mark.parametrize(
    ("module", "norm"),
    [
        ("backbone/stem/conv", "backbone/stem/bn"),
        ("backbone/res2/block1/conv_shortcut", "backbone/res2/block1/bn_shortcut"),
        ("reduction", "reduction/bn"),
    ],
)
def test_batch_norm_name_is_that_of_the_parameters(module, norm):
    assert batch_norm_name(module) == norm


def test_folded_network_is_not_trained():
    variables, images = fold_batch_norm(random_variables(TINY)), random_images(2, TINY)
    with pytest.raises(ValueError, match="inference"):
        RMGL(TINY, folded=True).apply(variables, images, train=True, method="part_features")
