"""Embeddings are those of each image on its own, whatever the batch and the devices."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rmgl_jax.data.augment import normalize
from rmgl_jax.evaluation.embedding import embed, embed_batch
from rmgl_jax.models.rmgl import RMGL
from tests.tiny import tiny_config, tiny_images
from tests.tiny_model import random_variables

CONFIG = tiny_config().model
IMAGES = tiny_images(np.arange(19) % 6)


@pytest.fixture(scope="module")
def variables():
    return random_variables(CONFIG)


@pytest.fixture(scope="module")
def each(variables):
    """Every image and every mirror image in a batch of its own, `[2, M, E]`."""
    apply = jax.jit(lambda image: RMGL(CONFIG).apply(variables, image, train=False).embedding[0])
    return np.array(
        [
            [apply(normalize(jnp.asarray(image[None]))) for image in images]
            for images in (IMAGES, IMAGES[:, :, ::-1])
        ]
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_image_and_mirror_are_averaged_and_scaled(each, variables):
    assert jax.device_count() == 4
    found = embed(CONFIG, variables, IMAGES, batch_size=8)
    assert (found.shape, found.dtype) == ((19, each.shape[-1]), np.float32)
    np.testing.assert_allclose(found, unit(each.mean(axis=0)), atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_without_flip(each, variables):
    found = embed(CONFIG, variables, IMAGES, batch_size=8, flip=False)
    np.testing.assert_allclose(found, unit(each[0]), atol=2e-6)
    assert np.abs(found - unit(each.mean(axis=0))).max() > 1e-2


def test_a_mirror_image_has_the_same_embedding(variables):
    mirrored = embed(CONFIG, variables, IMAGES[:8, :, ::-1], batch_size=8)
    np.testing.assert_allclose(
        mirrored, embed(CONFIG, variables, IMAGES[:8], batch_size=8), atol=1e-6
    )


@pytest.mark.parametrize("number", [1, 7, 8, 9, 16, 17])
def test_any_number_of_images(number, each, variables):
    """Around one and two batches of 8: none is left out, and what fills the last leaves no trace"""
    found = embed(CONFIG, variables, IMAGES[:number], batch_size=8)
    assert len(found) == number
    np.testing.assert_allclose(found, unit(each.mean(axis=0))[:number], atol=2e-6)


def test_one_program_for_any_number_of_images(variables):
    embed_batch.clear_cache()
    for size in (1, 9, 16):
        embed(CONFIG, variables, IMAGES[:size], batch_size=8)
    assert embed_batch._cache_size() == 1


def test_no_images_are_no_embeddings(variables):
    assert len(embed(CONFIG, variables, IMAGES[:0], batch_size=8)) == 0


def test_a_batch_is_rounded_up_to_the_devices(each, variables):
    found = embed(CONFIG, variables, IMAGES, batch_size=5)
    np.testing.assert_allclose(found, unit(each.mean(axis=0)), atol=2e-6)


def test_a_memory_map_will_do(tmp_path, variables):
    path = tmp_path / "pixels"
    path.write_bytes(IMAGES.tobytes())
    mapped = np.memmap(path, np.uint8, "r", shape=IMAGES.shape)
    np.testing.assert_array_equal(
        embed(CONFIG, variables, mapped, batch_size=8),
        embed(CONFIG, variables, IMAGES, batch_size=8),
    )


def test_a_network_that_gives_zeros_gives_no_nan(variables):
    zeros = jax.tree.map(jnp.zeros_like, variables)
    assert not embed(CONFIG, zeros, IMAGES[:3], batch_size=8).any()


def test_progress_is_shown_and_goes_away(variables):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    embed(CONFIG, variables, IMAGES, batch_size=8, console=console, description="embedding query")
    assert "embedding query" in out.getvalue()
    assert "100%" in out.getvalue()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:, ::2], r"wants images \[M, 96, 32, 3\], got \(19, 48, 32, 3\)\."),
        (IMAGES[0], r"wants images \[M, 96, 32, 3\], got \(96, 32, 3\)\."),
        (IMAGES[..., :1], r"wants images \[M, 96, 32, 3\], got \(19, 96, 32, 1\)\."),
        (IMAGES / np.float32(255), r"wants uint8 images \(0..255, RGB\), got float32\."),
        (IMAGES.astype(np.int64), r"wants uint8 images .* got int64\."),
    ],
)
def test_other_images_are_refused(images, message, variables):
    with pytest.raises(ValueError, match=message):
        embed(CONFIG, variables, images)
