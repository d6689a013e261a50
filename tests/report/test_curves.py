"""Curves of the report."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from rmgl_jax.evaluation.ranking import rank_metrics
from rmgl_jax.report import curves
from rmgl_jax.report.run_files import series

pytestmark = pytest.mark.network


def test_training_curves_inherit_the_text_color_and_average_many_steps():
    values = np.random.default_rng(0).uniform(1, 2, 1000)
    records = [{"kind": "train", "step": i, "loss": value} for i, value in enumerate(values, 1)]
    svg = curves.training_curves(records, ["loss", "triplet"], "loss")
    assert "currentColor" in svg
    assert "#010203" not in svg
    paths = re.findall(r'<path d="(M[^"]*)" clip-path', svg)
    # The curve is the longest path; grid lines have two points.
    assert 240 <= max(path.count("L") for path in paths) + 1 <= 250


def test_curves_are_reproducible_and_have_unique_ids():
    metrics = rank_metrics(
        np.array([[0.1, 0.3, 0.2]]), np.array([1]), None, np.array([1, 2, 1]), None
    )
    records = [{"kind": "eval", "step": i, "mean_ap": 0.1 * i} for i in (1, 2)]

    def draw():
        return [
            curves.cmc_curves({"plain": metrics.cmc}),
            curves.ap_histogram(metrics),
            curves.evaluation_curves(records, {"mAP": "mean_ap", "mINP": "mean_inp"}),
        ]

    found = draw()
    assert found == draw()
    for svg in found:
        assert "xmlns" not in svg
        ElementTree.fromstring(svg.replace("xlink:", ""))
    ids = re.findall(r'\sid="([^"]*)"', "".join(found))
    assert len(ids) == len(set(ids))


def test_series_has_values_that_are_no_numbers():
    records = [{"kind": "train", "step": 1, "loss": "nan"}, {"kind": "eval", "step": 1, "loss": 2}]
    steps, values = series(records, "train", "loss")
    assert steps.tolist() == [1.0]
    assert np.isnan(values).all()
    assert series(records, "train", "triplet")[0].shape == (0,)
