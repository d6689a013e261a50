"""Projection of embeddings to fewer dimensions, and vectors of fewer bits."""

import numpy as np
import pytest
from scipy.linalg import fractional_matrix_power

from data_prep.errors import InputError
from rmgl_jax.evaluation.projection import (
    Projection,
    fit_projection,
    projection_from_file,
    projection_to_file,
    reduce_precision,
)


def embeddings(count=300, width=12, seed=0):
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, width)) * np.geomspace(1, 0.01, width)
    turned = mixed @ np.linalg.qr(random.normal(size=(width, width)))[0] + 0.3
    return turned.astype(np.float32)


PIDS = np.arange(300) // 3


@pytest.mark.parametrize("whitening", [0, 0.5, 1])
def test_projection_is_on_principal_components(whitening):
    rows = embeddings()
    projection = fit_projection(rows, PIDS, 5, whitening, "market1501")
    assert projection.fitted_on == "market1501"
    longest = fit_projection(rows, PIDS, 12, whitening)
    np.testing.assert_allclose(projection.components, longest.components[:, :5], atol=1e-5)
    covariance = np.cov((rows - rows.mean(axis=0)) @ longest.components, rowvar=False)
    variances = np.diag(covariance)
    assert (np.diff(variances) < 0).all()
    np.testing.assert_allclose(covariance, np.diag(variances), atol=1e-4 * variances[0])


@pytest.mark.parametrize("whitening", [0, 0.5, 1])
def test_projection_whitens_within_persons(whitening):
    """Distances are those under a power of the covariance within persons."""
    rows = embeddings()
    centers = rows.reshape(100, 3, 12).mean(axis=1)
    within = np.cov((rows - centers[PIDS]).T.astype(np.float64), bias=True)
    regularized = within + 0.1 * np.trace(within) / 12 * np.eye(12)
    components = fit_projection(rows, PIDS, 12, whitening).components
    expected = fractional_matrix_power(regularized, -whitening)
    np.testing.assert_allclose(components @ components.T, expected, atol=1e-4 * expected.max())


def test_projection_of_single_images_is_plain_pca():
    rows = embeddings()
    found = fit_projection(rows, np.arange(300), 4)
    expected = fit_projection(rows, PIDS, 4, whitening=0)
    np.testing.assert_allclose(found.components, expected.components, atol=1e-5)


def test_projection_without_whitening_keeps_distances():
    rows = embeddings()
    projection = fit_projection(rows, PIDS, 12, whitening=0)
    projected = (rows - projection.mean) @ projection.components
    centered = rows - rows.mean(axis=0)
    np.testing.assert_allclose(projected @ projected.T, centered @ centered.T, atol=1e-4)


def test_projections_of_all_widths_are_starts_of_the_longest():
    rows = embeddings()
    projection = fit_projection(rows, PIDS, 8)
    longest = (rows - projection.mean) @ projection.components
    for dim in (1, 3, 8):
        found = projection(rows, dim)
        assert (found.shape, found.dtype) == ((300, dim), np.float32)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        start = longest[:, :dim] / np.linalg.norm(longest[:, :dim], axis=1, keepdims=True)
        np.testing.assert_allclose(found, start, atol=1e-5)
    for dim in (0, 9):
        with pytest.raises(InputError, match=rf"8 dimensions, not {dim}"):
            projection(rows, dim)


def test_projection_of_its_mean_is_zero_not_nan():
    projection = fit_projection(embeddings(), PIDS, 4)
    assert not projection(projection.mean[None], 4).any()


def test_fit_projection_rejects_too_few_dimensions():
    with pytest.raises(InputError, match=r"13 .* 300 .* 12"):
        fit_projection(embeddings(), PIDS, 13)
    with pytest.raises(InputError, match=r"8 .* 8 images"):
        fit_projection(embeddings(8), PIDS[:8], 8)
    flat = np.pad(embeddings(300, 3), [(0, 0), (0, 2)])
    with pytest.raises(InputError, match="3 dimensions, fewer than the 4"):
        fit_projection(flat, PIDS, 4)
    with pytest.raises(InputError, match="300"):
        fit_projection(np.full((300, 12), 0.1, np.float32), PIDS, 1)


@pytest.mark.parametrize("whitening", [-3, 1.5])
def test_fit_projection_rejects_whitening_beyond_none_and_all(whitening):
    with pytest.raises(InputError, match=str(whitening)):
        fit_projection(embeddings(), PIDS, 4, whitening)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_fit_projection_rejects_what_is_not_finite(bad):
    rows = embeddings()
    with pytest.raises(InputError, match=str(bad)):
        fit_projection(rows, PIDS, 4, whitening=bad)
    rows[7, 3] = bad
    with pytest.raises(InputError, match="1 of 300"):
        fit_projection(rows, PIDS, 4)


def test_projection_of_equal_images_of_each_person_is_plain_pca():
    rows = embeddings(100).repeat(3, axis=0)
    found = fit_projection(rows, PIDS, 4)
    expected = fit_projection(rows, PIDS, 4, whitening=0)
    np.testing.assert_array_equal(found.components, expected.components)


def test_projection_digest_is_that_of_its_values():
    projection = fit_projection(embeddings(), PIDS, 4)
    same = Projection(projection.mean.copy(), projection.components.copy(), "other", 2)
    assert same.digest == projection.digest
    changed = projection.components.copy()
    changed[0, 0] += 1e-3
    assert Projection(projection.mean, changed).digest != projection.digest


def test_projection_file_round_trip_and_damage():
    projection = fit_projection(embeddings(), PIDS, 4, fitted_on="market1501")
    arrays, metadata = projection_to_file(projection)
    found = projection_from_file("file", arrays.__getitem__, metadata, 12)
    assert (found.digest, found.fitted_on) == (projection.digest, "market1501")
    with pytest.raises(InputError, match=r"file .*float32.*12.*13"):
        projection_from_file("file", arrays.__getitem__, metadata, 13)
    changed = {name: array * 2 for name, array in arrays.items()}
    with pytest.raises(InputError, match="file is damaged"):
        projection_from_file("file", changed.__getitem__, metadata, 12)


def test_reduce_precision_keeps_directions():
    rows = embeddings()
    for precision, limit in (("float32", 0), ("float16", 1e-6), ("int8", 1e-3)):
        values, scales = reduce_precision(rows, precision)
        assert values.dtype == precision
        assert (scales is None) == (precision != "int8")
        wide = values.astype(np.float32)
        cosines = (wide * rows).sum(1) / np.linalg.norm(wide, axis=1) / np.linalg.norm(rows, axis=1)
        assert 1 - cosines.min() <= limit + 1e-6
        if scales is not None:
            assert np.abs(wide * scales[:, None] - rows).max() <= scales.max() / 2 * 1.001
    assert not reduce_precision(np.zeros((2, 3), np.float32), "int8")[0].any()
