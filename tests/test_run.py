"""The main job from the command line: end to end, and one sentence for each thing that is wrong."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import jax
import pytest

from experiments import market_rmgl, synthetic_rmgl
from rmgl_jax import config as config_module
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.experiment import run
from rmgl_jax.training.logger import read_metrics
from rmgl_jax.training.run_directory import read_config
from rmgl_jax.training.run_info import read_run_info

SMALL = ["--preset", "tiny", "--model.granularities", "2", "--model.paths", "original"]
SMALL += ["--train.epochs", "1", "--baselines"]


def start(home, *arguments):
    """`python -m experiments.synthetic_rmgl` on one device, with its caches below `home`."""
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "XDG_CACHE_HOME": str(home / "cache"),
        "PYTHONPATH": str(root),
        "XLA_FLAGS": "",
        "COLUMNS": "200",
    }
    return subprocess.run(
        [sys.executable, "-m", "experiments.synthetic_rmgl", *arguments],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where the runs of this file find their data."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def finished(home):
    return start(home, *SMALL, "--data-dir", "data", "--workdir", "run")


@pytest.fixture(scope="module")
def data_dir(home, finished):
    return home / "data"


# --- From nothing to a result -----------------------------------------------------------------


def test_it_runs_and_says_what_it_does(finished):
    assert finished.returncode == 0, finished.stderr
    out = finished.stdout
    assert "train 64 images of 16 identities, query 20, gallery 42 at 96x48" in out
    assert "backbone from none; 1 x cpu, seed 0" in out
    assert "step 1/3 · loss" in out
    assert "Everything of this run is in run" in out
    # The table: what was measured, and that it is neither re-ranked nor unflipped.
    for part in ("mAP", "(official)", "mINP", "flipped, not re-ranked", "raw pixels"):
        assert part in out
    assert "Requested" not in out + finished.stderr  # Orbax speaks of its inner steps.
    assert "Traceback" not in out + finished.stderr


def test_its_result_says_what_it_is(home, finished):
    result = EvaluationResult.from_json((home / "run" / "result.json").read_text())
    assert (result.dataset, result.version) == ("synthetic/tiny", "1.0.0")
    assert (result.n_query, result.n_gallery, result.n_ids) == (20, 42, 8)
    assert (result.flipped, result.same_camera_rule, result.reranked) == (True, True, None)
    assert (result.checkpoint, result.step) == ("run", "3")
    assert 0 < result.plain.mean_ap < 1


def test_its_directory_has_all_of_it_and_no_picture(home, finished):
    workdir = home / "run"
    config = read_config(workdir)
    assert (config.model.num_classes, config.model.granularities) == (16, (2,))
    assert config.train.epochs == 1
    records = read_metrics(workdir)
    assert [(record["kind"], record["step"]) for record in records] == [
        ("train", 1),
        ("train", 2),
        ("train", 3),
        ("eval", 3),
    ]
    result = EvaluationResult.from_json((workdir / "result.json").read_text())
    assert records[-1]["mean_ap"] == result.plain.mean_ap
    assert {path.name for path in workdir.iterdir()} == {
        "checkpoints",
        "config.json",
        "metrics.jsonl",
        "result.json",
        "run.json",
        "tensorboard",
    }
    made = read_run_info(workdir)
    assert made["command"].startswith("python -m experiments.synthetic_rmgl --preset tiny ")
    assert made["device"] == "1 x cpu"
    assert f"jax {jax.__version__}" in made["versions"]
    jpeg, png = b"\xff\xd8\xff", b"\x89PNG"
    for path in workdir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not content.startswith((jpeg, png)), path
            assert b"JFIF" not in content, path
            assert b"IHDR" not in content, path


def test_a_finished_run_is_only_evaluated_again(home, finished):
    # A name as long as the first, so that the tables are laid out alike.
    workdir = shutil.copytree(home / "run", home / "2nd")
    (workdir / "run.json").unlink()
    before = (workdir / "metrics.jsonl").read_bytes()
    again = start(home, *SMALL, "--data-dir", "data", "--workdir", "2nd", "--figures")
    assert again.returncode == 0, again.stderr
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert not (workdir / "run.json").exists()  # Who evaluates has not trained.
    report = "The report is in 2nd/report.html\n"
    assert report in again.stdout
    assert "data:image/jpeg" in (workdir / "report.html").read_text()
    table = "synthetic/tiny 1.0.0: 20 queries"
    assert table in again.stdout
    shown = again.stdout.partition(table)[2].replace(report, "").replace("2nd", "run")
    assert shown == finished.stdout.partition(table)[2]


# --- What can be wrong ------------------------------------------------------------------------


@pytest.fixture
def fails(monkeypatch, capsys):
    """Runs an experiment in this process; the sentence that it ends with."""
    monkeypatch.setattr(run, "silence_loggers", lambda: None)
    monkeypatch.setattr(run, "start_jax", lambda options: None)
    monkeypatch.setenv("COLUMNS", "1000")

    def fail(*arguments, experiment=synthetic_rmgl):
        monkeypatch.setattr(sys, "argv", ["experiment", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            run.main(experiment.PRESETS, getattr(experiment, "PAPER", {}), experiment.__doc__)
        if isinstance(ended.value.code, str):  # Printed by Python, whose exit status is then 1.
            return ended.value.code
        assert ended.value.code == 1
        said = capsys.readouterr()
        assert said.err == ""
        return said.out.strip().splitlines()[-1]

    return fail


@pytest.mark.parametrize("workdir", ["", "  "])
def test_empty_work_directory(workdir, fails):
    assert "work directory is empty: --workdir wants a path." in fails("--workdir", workdir)


def test_a_work_directory_that_cannot_be_written(fails, data_dir, tmp_path):
    (tmp_path / "file").write_text("")
    said = fails(*SMALL, "--data-dir", data_dir, "--workdir", tmp_path / "file" / "run")
    assert f"The work directory {tmp_path}/file/run can't be written: " in said


def test_missing_data_says_how_to_get_it_and_what_runs_at_once(fails, tmp_path):
    said = fails("--data-dir", tmp_path, "--workdir", tmp_path / "run", experiment=market_rmgl)
    assert "market1501 is not prepared in" in said
    assert "https://" in said
    assert "--source DIR" in said
    assert "`python -m experiments.synthetic_rmgl` runs at once" in said
    assert not (tmp_path / "run").exists()


def test_a_source_without_the_images(fails, tmp_path):
    said = fails("--source", tmp_path, "--data-dir", tmp_path / "data", experiment=market_rmgl)
    assert "market1501: wanted a directory that holds" in said
    assert str(tmp_path) in said


def test_unknown_preset(fails):
    sentence = "There is no preset 'huge'; there is demo, tiny, mgn, pcb, paper."
    assert fails("--preset", "huge") == sentence
    assert fails("--preset=huge") == sentence


def test_unknown_data_set(fails):
    assert "unknown data set 'market'; there are market1501," in fails("--dataset", "market")


def test_missing_weights(fails, tmp_path):
    """Said before any data is prepared."""
    said = fails("--weights", tmp_path / "w.pth", "--data-dir", tmp_path / "data")
    assert f"There is no weights file {tmp_path}/w.pth." in said
    assert not (tmp_path / "data").exists()


def test_another_configuration_in_the_work_directory(fails, data_dir, home):
    said = fails(
        *SMALL, "--data-dir", data_dir, "--workdir", home / "run", "--optimizer.momentum", 0.5
    )
    assert "optimizer.momentum was 0.9, is now 0.5." in said


def test_pictures_want_a_single_process(fails, data_dir, tmp_path, monkeypatch):
    """Said before anything is trained."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    said = fails(*SMALL, "--data-dir", data_dir, "--workdir", tmp_path / "run", "--figures")
    assert "--figures wants a single process" in said
    assert not (tmp_path / "run").exists()


def test_more_persons_than_there_are(fails, data_dir, tmp_path):
    said = fails(
        *SMALL, "--data-dir", data_dir, "--workdir", tmp_path / "run", "--train.num_ids", 40
    )
    assert "A batch of 40 persons needs at least as many identities" in said


def test_a_value_that_cannot_be(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["synthetic_rmgl.py"])
    with pytest.raises(SystemExit):
        run.parse(synthetic_rmgl.PRESETS, "", ["--train.num_ids", "0"])
    assert "TrainConfig.num_ids must be positive, got 0." in capsys.readouterr().err


def test_the_trace_is_there_for_whoever_asks(monkeypatch):
    monkeypatch.setenv("RMGL_TRACEBACK", "1")
    monkeypatch.setattr(run, "silence_loggers", lambda: None)
    monkeypatch.setattr(run, "start_jax", lambda options: None)
    monkeypatch.setattr(sys, "argv", ["synthetic_rmgl.py", "--workdir", ""])
    with pytest.raises(ValueError, match="work directory is empty"):
        run.main(synthetic_rmgl.PRESETS, {}, "")


# --- The command line is the configuration ----------------------------------------------------


def documented(kind, prefix=""):
    """Every option of a dataclass with the text that stands under its field in the source."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    texts = {
        field.target.id: ast.literal_eval(text.value)
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    hints = get_type_hints(kind)
    for field in fields(kind):
        if is_dataclass(hints[field.name]):
            # The experiment's own fields need no prefix.
            inner = "" if field.name == "experiment" else f"{prefix}{field.name}."
            yield from documented(hints[field.name], inner)
        else:
            yield f"--{prefix}{field.name}".replace("_", "-"), texts.get(field.name, "")


def test_help_lists_every_field_with_its_meaning(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["market_rmgl.py"])
    with pytest.raises(SystemExit) as ended:
        run.parse(market_rmgl.PRESETS, market_rmgl.__doc__, ["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "usage: python -m experiments.market_rmgl" in shown
    options = dict(documented(run.RunOptions))
    classes = [
        kind
        for kind in vars(config_module).values()
        if inspect.isclass(kind) and is_dataclass(kind)
    ]
    assert len(options) >= sum(len(fields(kind)) for kind in classes) - 20
    for option, text in options.items():
        assert f" {option} " in shown or f" {option}, " in shown, option
        assert len(text) > 10, f"{option} has no meaning"
        assert " ".join(text.split()) in shown, option
    # And what the experiment is.
    assert "rank-1 96.2, mAP 90.0" in shown


@pytest.mark.parametrize("name", ["market", "duke", "cuhk03", "msmt17", "folder", "synthetic"])
def test_every_experiment_has_its_presets(name, monkeypatch):
    module = __import__(f"experiments.{name}_rmgl", fromlist=["PRESETS"])
    monkeypatch.setattr(sys, "argv", [f"{name}_rmgl.py"])
    for preset, config in module.PRESETS.items():
        options = run.parse(module.PRESETS, module.__doc__, ["--preset", preset])
        assert options.experiment == config
        assert preset in options.workdir
        listed = module.__doc__.partition("Presets")[2]
        assert re.search(rf"^  .*\b{preset}\b", listed, re.MULTILINE), "the docstring lists them"
    changed = run.parse(module.PRESETS, module.__doc__, ["--train.seed=5", "--loss.margin=None"])
    assert (changed.experiment.train.seed, changed.experiment.loss.margin) == (5, None)
