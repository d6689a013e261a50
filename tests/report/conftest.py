"""One finished run on rendered images and its page, shared by all tests of the report."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from rmgl_jax import checked_json
from rmgl_jax.evaluation.protocol import evaluate_splits
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.report.inspection import Inspection, inspect_run
from rmgl_jax.report.page import render
from rmgl_jax.report.run_files import RunFiles, read_run
from tests.report.tiny_report import STEP, report_config, write_run
from tests.tiny_trees import prepare_partial


@dataclass
class Finished:
    workdir: Path
    data_dir: Path
    variables: dict
    result: EvaluationResult
    run: RunFiles
    seen: Inspection
    path: Path
    html: str


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    workdir, data_dir = root / "run", root / "data"
    config = report_config("synthetic/tiny")
    prepare_partial(config.dataset, None, data_dir)
    variables = write_run(workdir, config)
    seen = inspect_run(workdir, config.dataset, STEP, data_dir)
    settings = replace(config.eval, rerank=True, k1=5, k2=2)
    result = evaluate_splits(config.model, variables, seen.query, seen.gallery, settings, step=STEP)
    (workdir / "result.json").write_text(result.to_json())
    info = {"command": "python -m me --a '<b>'", "commit": None, "device": "2 x abacus"}
    checked_json.write(workdir / "run.json", info)
    run = read_run(workdir)
    html = render(run, seen)
    path = workdir / "report.html"
    path.write_text(html)
    return Finished(workdir, data_dir, variables, result, run, seen, path, html)
