"""Embeddings are those of each image alone, for any number of images, batch size and devices."""

import io
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from data_prep.errors import InputError
from rmgl_jax.data.augment import normalize
from rmgl_jax.evaluation.embedding import embed, embed_batch, embed_rows
from rmgl_jax.models.rmgl import RMGL
from tests.tiny import tiny_config, tiny_images
from tests.tiny_model import random_variables

pytestmark = pytest.mark.network

CONFIG = tiny_config().model
IMAGES = tiny_images(np.arange(19) % 6)


@pytest.fixture(scope="module")
def variables():
    return random_variables(CONFIG)


@pytest.fixture(scope="module")
def each(variables):
    """Every image and every mirrored image in a batch of its own, `[2, M, E]`."""
    apply = jax.jit(lambda image: RMGL(CONFIG).apply(variables, image, train=False).embedding[0])
    return np.array(
        [
            [apply(normalize(jnp.asarray(image[None]))) for image in images]
            for images in (IMAGES, IMAGES[:, :, ::-1])
        ]
    )


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("number", [0, 1, 7, 8, 9, 16, 17, 19])
def test_embed_averages_image_and_mirror_of_any_number_of_images(number, each, variables):
    """Around one and two batches of 8: no image is missing, and padding leaves no trace."""
    assert jax.device_count() == 4
    found = embed(CONFIG, variables, IMAGES[:number], batch_size=8)
    assert (found.shape, found.dtype) == ((number, each.shape[-1]), np.float32)
    np.testing.assert_allclose(found, unit(each.mean(axis=0))[:number], atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_embed_without_flip(each, variables):
    found = embed(CONFIG, variables, IMAGES, batch_size=8, flip=False)
    np.testing.assert_allclose(found, unit(each[0]), atol=2e-6)
    assert np.abs(found - unit(each.mean(axis=0))).max() > 1e-2


def test_embed_gives_mirrored_image_the_same_embedding(variables):
    found, mirrored = (
        embed(CONFIG, variables, images, batch_size=8) for images in (IMAGES, IMAGES[:, :, ::-1])
    )
    np.testing.assert_allclose(mirrored, found, atol=1e-6)


@pytest.mark.parametrize("size", [0, -1])
def test_embed_rejects_empty_batches(size, variables):
    with pytest.raises(InputError, match=str(size)):
        embed(CONFIG, variables, IMAGES, batch_size=size)


def test_embed_compiles_one_program(variables):
    embed_batch.clear_cache()
    # 5 is rounded up to 8, a multiple of the 4 devices.
    for size, batch_size in ((1, 8), (9, 5), (16, 8)):
        embed(CONFIG, variables, IMAGES[:size], batch_size=batch_size)
    assert embed_batch._cache_size() == 1


def test_embed_rows_reads_in_order_one_batch_ahead(variables):
    rows, main = [], threading.get_ident()

    def read(batch):
        assert threading.get_ident() != main
        rows.append((batch.start, batch.stop))
        return IMAGES[batch.start : batch.stop]

    found = embed_rows(CONFIG, variables, read, 19, batch_size=8)
    np.testing.assert_array_equal(found, embed(CONFIG, variables, IMAGES, batch_size=8))
    assert rows == [(0, 8), (8, 16), (16, 19)]


def test_embed_rows_raises_what_reading_raises(variables):
    def read(batch):
        if batch.start == 8:
            raise OSError("row 8 is damaged")
        return IMAGES[batch.start : batch.stop]

    with pytest.raises(OSError, match="row 8"):
        embed_rows(CONFIG, variables, read, 19, batch_size=8)


def test_embed_takes_memory_map(tmp_path, variables):
    path = tmp_path / "pixels"
    path.write_bytes(IMAGES.tobytes())
    mapped = np.memmap(path, np.uint8, "r", shape=IMAGES.shape)
    np.testing.assert_array_equal(
        embed(CONFIG, variables, mapped, batch_size=8),
        embed(CONFIG, variables, IMAGES, batch_size=8),
    )


def test_embed_gives_zeros_not_nan_for_a_network_of_zeros(variables):
    zeros = jax.tree.map(np.zeros_like, variables)
    assert not embed(CONFIG, zeros, IMAGES[:3], batch_size=8).any()


def test_embed_shows_progress(variables):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80)
    embed(CONFIG, variables, IMAGES, batch_size=8, console=console, description="embedding query")
    assert "embedding query" in out.getvalue()
    assert "19/19" in out.getvalue()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[:, ::2], r"\[M, 96, 32, 3\], got \(19, 48, 32, 3\)\."),
        (IMAGES[0], r"\[M, 96, 32, 3\], got \(96, 32, 3\)\."),
        (IMAGES[..., :1], r"\[M, 96, 32, 3\], got \(19, 96, 32, 1\)\."),
        (IMAGES / np.float32(255), r"uint8 \(0..255, RGB\), got float32\."),
        (IMAGES.astype(np.int64), r"uint8 .* got int64\."),
    ],
)
def test_embed_rejects_other_arrays(images, message, variables):
    with pytest.raises(ValueError, match=message):
        embed(CONFIG, variables, images)
