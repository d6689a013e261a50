"""Training of one configuration end to end, and the errors that it reports."""

import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from rich.console import Console

from data_prep.errors import InputError, MissingFileError, WriteError
from data_prep.files import held
from experiments import synthetic_rmgl
from rmgl_jax.evaluation.result import EvaluationResult
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.options import parse_run
from rmgl_jax.experiment.run import train
from rmgl_jax.experiment.splits import load_query_and_gallery, load_train_and_test
from rmgl_jax.export.model_file import load_model
from rmgl_jax.models.pretrained import save_backbone
from rmgl_jax.training.logger import read_metrics
from rmgl_jax.training.run_data import read_run_data
from rmgl_jax.training.run_directory import read_config
from rmgl_jax.training.run_info import read_run_info
from tests.compilation import xla_flags
from tests.tiny_trees import write_images
from tests.trained_run import random_state, run_config

pytestmark = pytest.mark.network

SMALL = "--preset tiny --model.granularities 2 --model.paths original --model.original-abp off"
SMALL += " --model.image-size 32 16 --model.last-stage res4 --model.width 2 --train.epochs 1"
CONFIG = parse_run(synthetic_rmgl.PRESETS, "", SMALL.split()).experiment
TABLE = "synthetic/tiny 1.0.0: 20 queries"


def recorder():
    return Console(width=200, file=io.StringIO())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Directory of the runs and data of this module."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def finished(home):
    """`python -m experiments.synthetic_rmgl` in its own process, on one device."""
    root = Path(__file__).parents[1]
    environment = os.environ | {
        "PYTHONPATH": str(root),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XLA_FLAGS": xla_flags(devices=1),
        "COLUMNS": "200",
    }
    command = f"-m experiments.synthetic_rmgl {SMALL} --baselines --data-dir data --workdir run"
    return subprocess.run(
        [sys.executable, *command.split()],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=900,
    )


# From nothing to a result


def test_run_prints_its_data_progress_and_result(finished):
    assert finished.returncode == 0, finished.stderr
    out = finished.stdout
    assert "train 64 images of 16 identities, query 20, gallery 42 at 32x16" in out
    assert "backbone from none; 1 x cpu, seed 0" in out
    assert "step 1/3 · loss" in out
    assert "Everything of this run is in run" in out
    for part in (TABLE, "mAP", "(official)", "mINP", "flipped, not re-ranked", "raw pixels"):
        assert part in out
    assert "Requested" not in out + finished.stderr  # Orbax logs its inner steps.
    assert "Traceback" not in out + finished.stderr


def test_result_describes_itself(home, finished):
    result = EvaluationResult.from_json((home / "run" / "result.json").read_text())
    assert (result.dataset, result.version) == ("synthetic/tiny", "1.0.0")
    assert (result.n_query, result.n_gallery, result.n_ids) == (20, 42, 8)
    assert (result.flipped, result.same_camera_rule, result.reranked) == (True, True, None)
    assert (result.checkpoint, result.step) == ("run", "3")
    assert result.trained_on == "synthetic/tiny"
    assert 0 < result.plain.mean_ap < 1


def test_run_directory_holds_everything_but_pictures(home, finished):
    workdir = home / "run"
    config = read_config(workdir)
    assert config == replace(CONFIG, model=replace(CONFIG.model, num_classes=16))
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
        "data.json",
        "metrics.jsonl",
        "result.json",
        "run.json",
        "tensorboard",
    }
    info = read_run_info(workdir)
    assert info["command"].startswith("python -m experiments.synthetic_rmgl --preset tiny ")
    assert info["device"] == "1 x cpu"
    assert f"jax {jax.__version__}" in info["versions"]
    jpeg, png = b"\xff\xd8\xff", b"\x89PNG"
    for path in workdir.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not content.startswith((jpeg, png)), path
            assert b"JFIF" not in content, path
            assert b"IHDR" not in content, path


def test_finished_run_is_only_evaluated_again(home, finished, monkeypatch):
    monkeypatch.chdir(home)
    # A name as long as the first, so that the tables have the same layout.
    workdir = Path(shutil.copytree("run", "2nd"))
    (workdir / "run.json").unlink()
    (workdir / "result.json").unlink()
    before = (workdir / "metrics.jsonl").read_bytes()
    console = recorder()
    result = train(
        CONFIG, "2nd", data_dir=Path("data"), baselines=True, figures=True, console=console
    )
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert not (workdir / "run.json").exists()  # This process has not trained.
    assert (workdir / "result.json").read_text() == result.to_json()
    assert result.step == "3"
    report = "The report is in 2nd/report.html\n"
    printed = console.file.getvalue()
    assert report in printed
    assert "data:image/jpeg" in (workdir / "report.html").read_text()
    shown = printed.partition(TABLE)[2].replace(report, "").replace("2nd", "run")
    assert shown == finished.stdout.partition(TABLE)[2]


# Without a test set


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Own images: `train` has 4 identities, `query` and `gallery` are incomplete test sets."""
    root = tmp_path_factory.mktemp("own")
    names = [f"{pid:04}_c{camera}_{pid}.png" for pid in range(1, 5) for camera in (1, 2)]
    write_images(root / "train_only" / "train", names)
    for split in ("query", "gallery"):
        write_images(root / split / "train", names)
        write_images(root / split / split, names)
    return root


def own_config(name):
    config = run_config(f"folder/{name}")
    return replace(config, train=replace(config.train, epochs=1))


@pytest.fixture(scope="module")
def trained_only(own):
    """A finished run on training images alone: what it returned, printed and wrote by each step."""
    console, written = recorder(), []
    result = train(
        own_config("train_only"),
        own / "run",
        source=own / "train_only",
        data_dir=own / "data",
        console=console,
        on_step=lambda done: written.append({path.name for path in (own / "run").iterdir()}),
    )
    return own / "run", result, console.file.getvalue(), written


def test_training_without_test_set_evaluates_nothing(trained_only):
    workdir, result, printed, _ = trained_only
    assert result is None
    assert not (workdir / "result.json").exists()
    assert "folder/train_only has no query and gallery images: nothing was evaluated" in printed
    assert "train 8 images of 4 identities at 32x16" in printed
    model = load_model(workdir)
    assert model.config.model.num_classes == 4
    assert {record["kind"] for record in read_metrics(workdir)} == {"train"}


def test_run_info_is_written_before_the_first_checkpoint(trained_only):
    """A process that is killed after its last checkpoint leaves nothing for the next one to do."""
    *_, written = trained_only
    assert written
    assert all("run.json" in names for names in written)


def test_finished_run_without_test_set_returns_none_again(own, trained_only):
    workdir, *_ = trained_only
    before = (workdir / "metrics.jsonl").read_bytes()
    assert train(own_config("train_only"), str(workdir), data_dir=str(own / "data")) is None
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_other_data_of_the_same_name_is_refused(own, trained_only, tmp_path):
    """With the same names, counts and labels, but other images."""
    names = [path.name for path in sorted((own / "train_only" / "train").iterdir())]
    write_images(tmp_path / "train_only" / "train", reversed(names))
    workdir = shutil.copytree(trained_only[0], tmp_path / "run")
    found = {}
    for source, data_dir in ((tmp_path, tmp_path / "data"), (own, own / "data")):
        found[source] = load_train_and_test(
            "folder/train_only", (32, 16), source=source / "train_only", data_dir=data_dir
        )[0].digest[:16]
    with pytest.raises(InputError, match=f"train was {found[own]}, is now {found[tmp_path]}"):
        train(own_config("train_only"), workdir, data_dir=tmp_path / "data")
    # Where the data lies does not matter.
    moved = shutil.copytree(own / "data", tmp_path / "moved")
    assert train(own_config("train_only"), workdir, data_dir=moved) is None


def test_run_directory_in_use_is_refused(own, trained_only):
    workdir = trained_only[0]
    with (
        held(workdir / ".lock"),
        pytest.raises(WriteError, match=rf"{workdir} .*process {os.getpid()} on "),
    ):
        train(own_config("train_only"), workdir, data_dir=own / "data")
    assert train(own_config("train_only"), workdir, data_dir=own / "data") is None
    assert not (workdir / ".lock").exists()


def test_run_json_is_written_at_the_first_step(own, tmp_path):
    class Killed(BaseException):
        pass

    def kill(done):
        assert read_run_info(tmp_path)["device"].endswith(" x cpu")
        assert read_run_data(tmp_path)["dataset"] == "folder/train_only"
        assert (tmp_path / ".lock").exists()
        raise Killed

    with pytest.raises(Killed):
        train(own_config("train_only"), tmp_path, data_dir=own / "data", on_step=kill)
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("option", ["baselines", "figures"])
def test_baselines_and_figures_require_a_test_set(own, trained_only, tmp_path, option):
    with pytest.raises(InputError, match=r"folder/train_only has no query and gallery.*--"):
        train(own_config("train_only"), tmp_path / "run", data_dir=own / "data", **{option: True})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["query", "gallery"])
def test_half_a_test_set_is_rejected(own, tmp_path, split):
    with pytest.raises(InputError, match="query and gallery go together"):
        train(own_config(split), tmp_path / "run", source=own / split, data_dir=own / "data")
    # A dataset that was prepared in another way.
    builder = SimpleNamespace(info=SimpleNamespace(splits=["train", split]), data_path="here")
    with pytest.raises(InputError, match=r"here has no images of (query|gallery):") as caught:
        load_query_and_gallery(builder, (32, 16))
    assert f"no images of {split}" not in str(caught.value)


# Errors


@pytest.fixture
def fails(own, trained_only, tmp_path):
    """Runs with a wrong argument; returns the message."""

    def fail(kind, workdir=None, config=None, **arguments):
        workdir = tmp_path / "run" if workdir is None else workdir
        arguments = {"data_dir": own / "data"} | arguments
        with pytest.raises(kind) as caught:
            train(config or own_config("train_only"), workdir, **arguments)
        return str(caught.value)

    return fail


def test_test_set_without_matches_is_refused_before_training(tmp_path):
    """Query and gallery images of an identity are of the same camera."""
    source = tmp_path / "images"
    train_names = [f"{pid:04}_c{camera}_{pid}.png" for pid in range(1, 5) for camera in (1, 2)]
    write_images(source / "train", train_names)
    for split in ("query", "gallery"):
        write_images(source / split, [f"{pid:04}_c1_{split}{pid}.png" for pid in (5, 6)])
    with pytest.raises(InputError, match="None of the 2 queries has a match"):
        train(own_config("unmatched"), tmp_path / "run", source=source, data_dir=tmp_path / "data")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workdir", ["run[1]", "back\\slash"])
def test_workdir_that_cannot_hold_checkpoints(workdir, fails, tmp_path):
    """Reported before any data is prepared."""
    data_dir = tmp_path / "data"
    message = fails(InputError, tmp_path / workdir, data_dir=data_dir, source=tmp_path)
    assert workdir in message
    assert not data_dir.exists()


@pytest.mark.parametrize("workdir", ["", "  ", "gs://bucket/run"])
def test_workdir_that_is_no_directory(workdir, fails):
    message = fails(InputError, workdir)
    assert "--workdir" in message
    assert workdir in message


def test_workdir_that_cannot_be_written(fails, tmp_path):
    (tmp_path / "file").write_text("")
    message = fails(OSError, tmp_path / "file" / "run")
    assert f"{tmp_path}/file/run" in message


def test_missing_data(fails, tmp_path):
    message = fails(MissingFileError, config=run_config("market1501"), data_dir=tmp_path)
    assert "market1501 is not prepared in" in message
    assert "https://" in message
    assert "--source DIR" in message
    assert "`python -m experiments.synthetic_rmgl`" in message
    assert not (tmp_path / "run").exists()


def test_source_without_images(fails, tmp_path):
    message = fails(MissingFileError, config=run_config("market1501"), source=tmp_path)
    assert "market1501" in message
    assert str(tmp_path) in message


def test_unknown_dataset(fails):
    assert "'market'" in fails(InputError, config=run_config("market"))


def test_train_without_console_warns_of_missing_layer4(finished, home, tmp_path):
    """Warnings are errors in the tests, so that the run ends before it compiles anything."""
    variables = random_state(CONFIG, step=0)
    arrays = {"params": variables.params, "batch_stats": variables.batch_stats}
    weights = tmp_path / "res4.safetensors"
    save_backbone(weights, arrays, CONFIG.model)
    config = replace(CONFIG, model=replace(CONFIG.model, last_stage="res5"))
    with pytest.raises(UserWarning, match="no layer4"):
        train(
            config, tmp_path / "run", data_dir=home / "data", weights=tmp_path / "res4.safetensors"
        )


def test_missing_weights(fails, tmp_path):
    """Reported before any data is prepared."""
    data_dir = tmp_path / "data"
    message = fails(MissingFileError, weights=tmp_path / "w.pth", data_dir=data_dir)
    assert f"{tmp_path}/w.pth" in message
    assert not data_dir.exists()


def test_full_network_without_weights(fails, tmp_path):
    """Reported before any data is prepared."""
    data_dir = tmp_path / "data"
    message = fails(InputError, config=presets.gpu("market1501"), data_dir=data_dir)
    assert "--weights" in message
    assert not data_dir.exists()


def test_other_configuration_in_the_workdir(fails, trained_only):
    config = own_config("train_only")
    config = replace(config, optimizer=replace(config.optimizer, momentum=0.5))
    message = fails(ValueError, trained_only[0], config)
    assert "optimizer.momentum was 0.9, is now 0.5" in message


def test_figures_require_a_single_process(fails, tmp_path, monkeypatch):
    """Reported before anything is trained."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert "--figures requires a single process, got 2" in fails(InputError, figures=True)
    assert not (tmp_path / "run").exists()


def test_more_identities_in_a_batch_than_there_are(fails):
    config = own_config("train_only")
    config = replace(config, train=replace(config.train, num_ids=40))
    message = fails(ValueError, config=config)
    assert "40" in message
    assert "4" in message.replace("40", "")
