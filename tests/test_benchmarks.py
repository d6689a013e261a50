"""Reports of benchmarks name the machine, and can be compared."""

import argparse
import json

from benchmarks import report, suite


def test_report_names_machine_commit_and_figures(tmp_path, monkeypatch):
    # The product takes longer than the rest of these tests.
    monkeypatch.setattr(report, "product_rate", lambda: 2e11)
    parser = argparse.ArgumentParser()
    report.add_json_option(parser)
    path = tmp_path / "report.json"
    figures = {"jax": {"ms": 2.0}}
    report.write_report("engines", parser.parse_args(["--json", str(path)]), figures)
    written = json.loads(path.read_text())
    assert written["figures"] == figures
    assert written["machine"]["processor"] == report.processor()
    assert written["machine"]["cores"] >= 1
    assert written["machine"]["gflops"] == 200
    assert written["versions"].keys() >= {"python", "jax", "numpy"}


def test_report_is_written_on_request_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report.write_report("engines", argparse.Namespace(json=None), {})
    assert not list(tmp_path.iterdir())


def test_ratios_are_those_of_times_that_both_reports_have():
    before = {"figures": {"jax": {"ms": 2.0, "ms, 100": 4.0, "recall": 1.0}, "gone": {"ms": 1.0}}}
    now = {"figures": {"jax": {"ms": 3.0, "ms, 100": 2.0, "recall": 0.5}, "new": {"ms": 1.0}}}
    assert suite.ratios(before, now) == {("jax", "ms"): 1.5, ("jax", "ms, 100"): 0.5}
