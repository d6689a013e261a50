"""Stripes, responses, regions and shifted samples of the report."""

import re
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmgl_jax.config import ModelConfig, RandomShiftingConfig
from rmgl_jax.data.normalization import normalize
from rmgl_jax.data.shifting import random_shifting
from rmgl_jax.models.partition import stripe_receptive_region
from rmgl_jax.models.pooling import activation_balanced_bounds
from rmgl_jax.models.rmgl import RMGL
from rmgl_jax.report.receptive_regions import receptive_regions
from rmgl_jax.report.response_maps import overlay, responses
from rmgl_jax.report.shifting_samples import shifting_samples
from tests.report.tiny_report import section
from tests.tiny_model import TINY, random_variables

pytestmark = pytest.mark.network

ORIGINAL = ("local2/original", "local3/original")
RECEPTIVE = ("local2/receptive", "local3/receptive")
NAMES = [ORIGINAL[0], RECEPTIVE[0], ORIGINAL[1], RECEPTIVE[1]]


@pytest.mark.network
def test_stripes_on_the_page_are_those_of_the_pooling(finished):
    html = section(finished.html, "stripes")
    drawn = re.findall(r"<svg(.*?)</svg>", html, re.DOTALL)
    queries = [int(row) for row in re.findall(r'data-query="(\d+)"', html)]
    assert len(queries) == len(set(queries)) == 6
    assert len(drawn) == 6 * len(ORIGINAL)
    images = normalize(finished.seen.query.images[queries])
    apply = partial(RMGL(finished.run.config.model).apply, method="feature_maps")
    maps = jax.jit(apply)(finished.variables, images)
    for number, svg in enumerate(drawn):
        image, stripes = number // 2, 2 + number % 2
        own = maps[ORIGINAL[number % 2]][image]
        bounds = np.asarray(activation_balanced_bounds(own[None], stripes))[0]
        height = float(re.search(r'viewBox="0 0 [\d.]+ ([\d.]+)"', svg)[1])
        lines = re.findall(r'<line data-row="(\d+)" .*? y1="(.*?)" y2="(.*?)"', svg)
        assert [int(row) for row, _, _ in lines] == bounds[1:-1].tolist()
        for row, y1, y2 in lines:
            assert y1 == y2 == f"{int(row) * height / len(own):.1f}"
        maxima = np.asarray(own).reshape(-1, own.shape[-1]).argmax(axis=0)
        crosses = svg.partition('class="peaks"')[2].partition("</g>")[0].count("<path")
        assert crosses == len(set(maxima.tolist()))
        rows = np.bincount(maxima // own.shape[1], minlength=len(own))
        widths = [float(w) for w in re.findall(r'<rect .*?width="(.*?)"', svg)]
        np.testing.assert_allclose(np.array(widths) / max(widths), rows / rows.max(), atol=0.01)


@pytest.mark.network
def test_page_has_response_and_regions_of_every_path(finished):
    html = section(finished.html, "responses")
    assert re.findall(r"<small>(\S+)</small>", html) == ["image", *NAMES] * 6
    edges = [svg.count("<line") for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]
    assert edges == [0, 1, 0, 2] * 6  # between the stripes of the receptive paths
    assert re.findall(r"<small>(\S+):", section(finished.html, "regions")) == NAMES


def test_responses_are_scaled_by_image():
    maps = np.random.default_rng(0).normal(size=(2, 3, 2, 5)) + 7
    found = responses(maps)
    for image, mean in zip(found, maps.mean(axis=3), strict=True):
        expected = (mean - mean.min()) / (mean.max() - mean.min())
        np.testing.assert_allclose(image, expected, atol=1e-5)
    np.testing.assert_array_equal(responses(np.ones((1, 3, 2, 5))), np.zeros((1, 3, 2)))


def test_overlay_is_brightest_at_the_response():
    response = np.zeros((4, 2))
    response[3, 1] = 1.0
    shown = overlay(np.full((32, 16, 3), 90, np.uint8), response, 64)
    assert (shown.shape, shown.dtype) == ((64, 32, 3), np.uint8)
    brightness = shown.sum(axis=2, dtype=int)
    assert brightness[60, 30] == brightness.max() > brightness[2, 2] == brightness.min()


def test_receptive_regions_of_the_paper():
    """ResNet-50 at 384x128: the original path sees almost all, the receptive path Eq. 6."""
    config = ModelConfig()
    regions = {path.map_name: path for path in receptive_regions(config)}
    assert list(regions) == NAMES
    assert regions["local2/original"].seen == ((0, 358), (11, 384))
    for stripes, original, receptive in zip((2, 3), ORIGINAL, RECEPTIVE, strict=True):
        path = regions[receptive]
        assert path.folded
        assert not regions[original].folded
        assert path.height == stripe_receptive_region(config, stripes, "res2")
        rows = 384 // stripes
        for number, (start, stop) in enumerate(path.seen):
            assert start <= number * rows < (number + 1) * rows <= stop
            assert stop - start <= path.height < regions[original].height
    assert receptive_regions(replace(config, granularities=(1,))) == []


@pytest.mark.network
def test_gradient_of_a_stripe_fills_its_region():
    config = replace(TINY, image_size=(160, 32), granularities=(2,))
    variables = random_variables(config)
    images = np.random.default_rng(0).normal(size=(1, *config.image_size, 3)).astype(np.float32)
    paths = {path.map_name: path for path in receptive_regions(config)}

    def stripe_sums(images):
        maps = RMGL(config).apply(variables, images, method="feature_maps")
        halves = [maps[name].reshape(2, -1).sum(axis=1) for name in paths]
        return jnp.concatenate(halves)

    weights = abs(np.asarray(jax.jit(jax.jacrev(stripe_sums))(images))).sum(axis=(1, 3, 4))
    regions = [region for path in paths.values() for region in path.seen]
    for rows, region in zip(weights, regions, strict=True):
        seen = np.flatnonzero(rows)
        assert (seen[0], seen[-1] + 1) == region
    original, receptive = (paths[name].seen[0][1] for name in (ORIGINAL[0], RECEPTIVE[0]))
    assert receptive < original < 160


def test_shifting_samples_are_those_of_the_augmentation():
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 24, 3), dtype=np.uint8)
    config = RandomShiftingConfig(probability=0.0, crop_probability=1.0)
    samples = shifting_samples(images, config, seed=5)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(np.arange(3))
    shift = jax.jit(partial(random_shifting, config=replace(config, probability=1.0)))
    for sample, shifted in zip(samples, np.asarray(shift(keys, images)), strict=True):
        np.testing.assert_allclose(sample.shifted, np.clip(shifted, 0, 255), atol=0.51)
        assert sample.crop.height < 48
        assert 24 <= sample.patch.shape[0] <= 48
        # All but the patch has the fill value.
        outside = (sample.shifted == config.fill).all(axis=2).sum()
        assert outside == 48 * 24 - np.prod(sample.patch.shape[:2])
