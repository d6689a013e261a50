"""Projection of embeddings on principal components, and vectors of fewer bits."""

import numpy as np
import pytest

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


@pytest.mark.parametrize("whitening", [0, 0.5, 1])
def test_projection_scales_principal_components(whitening):
    rows = embeddings()
    projection = fit_projection(rows, 5, whitening, "market1501")
    assert projection.fitted_on == "market1501"
    projected = (rows - projection.mean) @ projection.components
    variances = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1][:5]
    found = np.cov(projected.T, bias=True)
    np.testing.assert_allclose(found, np.diag(variances ** (1 - whitening)), atol=1e-4)


def test_projection_without_whitening_keeps_distances():
    rows = embeddings()
    projection = fit_projection(rows, 12, whitening=0)
    projected = (rows - projection.mean) @ projection.components
    centered = rows - rows.mean(axis=0)
    np.testing.assert_allclose(projected @ projected.T, centered @ centered.T, atol=1e-4)


def test_projections_of_all_widths_are_starts_of_the_longest():
    rows = embeddings()
    projection = fit_projection(rows, 8)
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
    projection = fit_projection(embeddings(), 4)
    assert not projection(projection.mean[None], 4).any()


def test_fit_projection_rejects_too_few_dimensions():
    with pytest.raises(InputError, match=r"13 .* 300 .* 12"):
        fit_projection(embeddings(), 13)
    with pytest.raises(InputError, match=r"8 .* 8 images"):
        fit_projection(embeddings(8), 8)
    flat = np.pad(embeddings(300, 3), [(0, 0), (0, 2)])
    with pytest.raises(InputError, match="3 dimensions, fewer than the 4"):
        fit_projection(flat, 4)


def test_projection_digest_is_that_of_its_values():
    projection = fit_projection(embeddings(), 4)
    same = Projection(projection.mean.copy(), projection.components.copy(), "other", 2)
    assert same.digest == projection.digest
    changed = projection.components.copy()
    changed[0, 0] += 1e-3
    assert Projection(projection.mean, changed).digest != projection.digest


def test_projection_file_round_trip_and_damage():
    projection = fit_projection(embeddings(), 4, fitted_on="market1501")
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
