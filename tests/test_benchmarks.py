"""Reports of benchmarks name the machine, and can be compared."""

import argparse
import json

from benchmarks import report, step_profile, suite


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


def test_kind_of_an_operation_is_that_of_what_it_contains():
    program = """
%inner (p0: f32[8]) -> f32[8] {
  %p0 = f32[8]{0} parameter(0)
  ROOT %dot.1 = f32[8]{0} dot(%p0, %p0), metadata={op_name="jit(f)/dot_general"}
}

%sum (p1: f32[8]) -> f32[8] {
  ROOT %add.1 = f32[8]{0} add(%p1, %p1), metadata={op_name="transpose(jvp(RMGL))/reduce(x)"}
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %product = f32[8]{0} fusion(%p), kind=kLoop, calls=%inner
  %plain = f32[8]{0} fusion(%p), kind=kLoop, calls=%sum, metadata={op_name="copy(x)"}
  %stem = f32[8]{0} convolution(%p, %p), window={size=3x3}
  %turned = f32[8]{0} transpose(%stem), dimensions={0}
  ROOT %largest = f32[8]{0} reduce-window(%turned, %p)
}
"""
    convolutions, products, layout, sums, rest = step_profile.KINDS
    kinds = step_profile.kinds_of_operations(program)
    assert {name: kinds[name] for name in ("product", "plain", "stem", "turned", "largest")} == {
        "product": products,
        "plain": rest,
        "stem": convolutions,
        "turned": layout,
        "largest": sums,
    }
