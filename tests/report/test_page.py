"""The page of a run: its numbers, its images, and what it says of an unfinished run."""

import io
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from rich.console import Console

from data_prep.errors import InputError, MissingFileError
from rmgl_jax.config import RandomShiftingConfig
from rmgl_jax.evaluation.result import MEASURES, measures
from rmgl_jax.report.command import ReportOptions, parse, report
from rmgl_jax.report.page import render, write_report
from rmgl_jax.report.run_card import without_directories
from rmgl_jax.report.run_files import read_run
from rmgl_jax.report.sections import SECTIONS
from rmgl_jax.training.checkpoints import CheckpointError
from rmgl_jax.training.logger import MetricLogger
from rmgl_jax.training.run_directory import init_run_directory
from tests.report.tiny_report import (
    STEP,
    report_config,
    section,
    visible_text,
    write_records,
    write_run,
)
from tests.tiny_trees import prepare_partial, write_images

pytestmark = pytest.mark.network
GLOBAL_MAP = "global"


def assert_self_contained(html: str) -> None:
    assert not re.search(r"https?:|//\w+\.\w|url\((?!#)|@import|<iframe|<object", html)
    for target in re.findall(r'(?:src|href|srcset|action)="([^"]*)"', html):
        assert target.startswith(("data:", "#")), target[:80]
    ids = re.findall(r'\sid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', html):
        assert "".join(target) in ids
    for image in re.findall(r"<img [^>]*>", html):
        assert re.search(r'alt="[^"]+"', image)
    for figure in re.findall(r"<figure>.*?</figure>", html, re.DOTALL):
        assert "<figcaption>" in figure


# --- A finished run -----------------------------------------------------------------------------


def test_page_is_one_file_with_every_section(finished):
    assert_self_contained(finished.html)
    assert re.findall(r'<section id="(.*?)">', finished.html) == [each.id for each in SECTIONS]
    for number in (3, 4, 5, 6):
        assert f"Compare Fig. {number}" in finished.html
    # Rendered images need no permission.
    assert "data:image/jpeg" in finished.html
    assert "--figures" not in finished.html
    assert "photographs" not in finished.html


def test_result_table_has_the_numbers_of_the_result(finished):
    html = section(finished.html, "result")
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', html)
    assert [name for name, _ in rows] == ["not re-ranked", "re-ranked"]
    rankings = finished.result.plain, finished.result.reranked.metrics
    for (_, cells), metrics in zip(rows, rankings, strict=True):
        shown = re.findall(r'<td><data value="(.*?)">(.*?)</data></td>', cells)
        expected = measures(metrics)
        assert list(expected) == list(MEASURES)
        assert [float(value) for value, _ in shown] == list(expected.values())
        assert [cell for _, cell in shown] == [f"{value:.2f}" for value in expected.values()]
    assert "re-ranking with k1 5, k2 2, lambda 0.3" in html
    assert f"checkpoint of step {STEP}. Evaluated again" in visible_text(html)
    assert f"mAP (step) is {100 * finished.result.plain.mean_ap:.2f}." in visible_text(html)


def test_run_card_has_command_and_changed_settings(finished):
    html = section(finished.html, "run")
    card = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", html))
    assert unescape(card["command"]) == "python -m me --a '<b>'"
    assert "<b>" not in html
    assert (card["commit"], card["device"]) == ("not recorded", "2 x abacus")
    assert (card["seed"], card["training speed"]) == ("0", "25 images/s (median)")
    assert card["evaluated on"].startswith("synthetic/tiny 1.0.0: 20 queries of 8 identities, 42")
    changed = re.findall(r"<code>(.*?)</code></th><td>(.*?)</td><td>(.*?)</td>", html)
    assert ("model.width", "2", "64") in changed
    assert not any(name == "model.fold_at" for name, _, _ in changed)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("python -m a --workdir /home/me/run --n=3", "python -m a --workdir .../run --n=3"),
        (
            "python /opt/b.py --source=/data/it --out '~/x y'",
            "python .../b.py --source=.../it --out '.../x y'",
        ),
        (
            "python -m a --workdir runs/b --c 1/2 --d -/e",
            "python -m a --workdir runs/b --c 1/2 --d -/e",
        ),
        ("python -m a 'not closed", "not readable"),
    ],
)
def test_without_directories_shortens_absolute_paths(command, shown):
    assert without_directories(command) == shown


# --- Photographs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run on images without cameras, of a global branch trained without RSA; and the data."""
    root = tmp_path_factory.mktemp("own")
    names = [f"{pid}_{number}.png" for pid in (1, 2) for number in range(3)]
    write_images(root / "own" / "query", names[::3])
    write_images(root / "own" / "gallery", names)
    prepare_partial("folder/own", root / "own", root / "data")
    config = report_config("folder/own", granularities=(1,))
    augment = replace(config.augment, shifting=RandomShiftingConfig())
    write_run(root / "run", replace(config, augment=augment))
    return root


def test_photographs_are_included_with_figures(own, tmp_path):
    output = tmp_path / "page.html"
    html = write_report(own / "run", data_dir=own / "data", output=output, figures=True).read_text()
    assert_self_contained(html)
    assert "data:image/jpeg" in html
    assert "shows photographs of people, from folder/own." in visible_text(html)
    assert "Do not share it" in html
    # Sections of what this model does not have.
    assert "does not use activation balanced pooling" in section(html, "stripes")
    assert "without random shifting" in section(html, "shifting")
    assert "no stripes" in section(html, "regions")
    shown = re.findall(r"<small>(\S+)</small>", section(html, "responses"))
    assert shown == ["image", GLOBAL_MAP] * 2
    assert "cam " not in section(html, "lists")
    assert "own camera" not in visible_text(section(html, "lists"))


def test_photographs_are_left_out_without_figures(tmp_path):
    workdir = tmp_path / "run"
    init_run_directory(report_config("market1501"), workdir)
    write_records(workdir)
    # Neither the dataset nor the checkpoint is there to be read.
    (workdir / "checkpoints" / str(STEP)).mkdir(parents=True)
    html = write_report(workdir, data_dir=tmp_path / "nowhere").read_text()
    assert "data:image" not in html
    assert "<img" not in html
    assert "they show people; --figures includes them." in visible_text(html)
    assert_self_contained(html)
    assert f"evaluation during training, step {STEP}" in html
    assert re.findall(r"<td>(?:<data.*?>)?(.*?)(?:</data>)?</td>", section(html, "result")) == [
        "25.00",
        "–",
        "–",
        "20.00",
        "15.00",
        "5.00",
    ]


# --- Unfinished runs and errors -----------------------------------------------------------------


def test_unfinished_run_is_shown_as_far_as_recorded(finished):
    html = render(replace(finished.run, result=None), finished.seen)
    assert "This run is not finished" in html
    assert f"checkpoint of step {STEP}" in html
    assert f"{100 * finished.result.plain.mean_ap:.2f}</data>" in html
    html = render(replace(finished.run, result=None, has_checkpoint=False))
    assert "no images, because there is no checkpoint." in visible_text(html)
    assert "data:image" not in html
    assert_self_contained(html)
    # A finished run, too, whose checkpoints were removed.
    html = render(replace(finished.run, has_checkpoint=False))
    assert "no images, because there is no checkpoint." in visible_text(html)
    html = render(replace(finished.run, result=None, records=finished.run.records[:1]))
    assert "Nothing is evaluated yet." in html
    partial = [{"kind": "train", "step": step, "loss": 5.0} for step in (1, 2)]
    html = render(replace(finished.run, records=partial))
    assert "Loss: 5.00 at step 1, 5.00 at step 2" in html
    assert "Learning rate: not recorded" in html
    html = render(replace(finished.run, records=[]), finished.seen)
    assert "No training steps are recorded." in html


def test_read_run_reports_missing_and_damaged_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        read_run(tmp_path)
    init_run_directory(report_config("market1501"), tmp_path)
    with pytest.raises(MissingFileError, match=f"{tmp_path}.*metrics.jsonl"):
        read_run(tmp_path)
    write_records(tmp_path)
    run = read_run(tmp_path)
    assert run.result is None
    assert not run.has_checkpoint
    assert len(run.records) == STEP + 1
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(InputError, match=f"{tmp_path}/result.json"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("run.json", '"2 x abacus"', '"3 x abacus"'),
        ("result.json", '"n_query": ', '"n_query": 1'),
        ("result.json", '"cmc": [', '"cmc": [0.5, '),
        ("metrics.jsonl", '"loss": 4.0', '"loss": 5.0'),
        ("metrics.jsonl", '"loss": 4.0', '"loss": "x"'),
    ],
)
def test_read_run_names_a_file_with_a_changed_value(finished, name, old, new, tmp_path):
    for other in ("config.json", "run.json", "result.json"):
        shutil.copy(finished.workdir / other, tmp_path / other)
    with MetricLogger(tmp_path, 2) as logger:
        for step in (1, 2):
            logger.write(step, {"loss": 5.0 - step}, "train")
    assert len(read_run(tmp_path).records) == 2
    path = tmp_path / name
    changed = path.read_text().replace(old, new, 1)
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(InputError, match=re.escape(str(path))):
        read_run(tmp_path)


def test_report_remarks_that_its_log_was_cut(tmp_path):
    """The checkpoint is of a later step than the last record."""
    init_run_directory(report_config("market1501"), tmp_path)
    write_records(tmp_path)
    (tmp_path / "checkpoints" / str(STEP)).mkdir(parents=True)
    out = io.StringIO()

    def page():
        console = Console(file=out, width=200)
        return write_report(tmp_path, console=console).read_text()

    assert "damaged" not in page()
    assert out.getvalue() == ""
    log = tmp_path / "metrics.jsonl"
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    remark = f"steps 2 to {STEP} "
    assert remark in page()
    assert remark in out.getvalue()


def test_report_names_the_missing_dataset(finished, tmp_path):
    output = tmp_path / "page.html"
    with pytest.raises(MissingFileError, match=rf"synthetic/tiny.*{tmp_path}.*--data-dir"):
        write_report(finished.workdir, data_dir=tmp_path, output=output)
    assert not output.exists()


def test_report_uses_the_checkpoint_of_the_result(finished, tmp_path):
    run = shutil.copytree(finished.workdir, tmp_path / "run")
    result = replace(finished.result, step="99")
    (run / "result.json").write_text(result.to_json())
    with pytest.raises(CheckpointError, match="99"):
        write_report(run, data_dir=finished.data_dir)


def test_report_refuses_images_that_are_not_those_of_the_result(finished, tmp_path):
    run = shutil.copytree(finished.workdir, tmp_path / "run")
    result = replace(finished.result, data_digest="0123 4567")
    (run / "result.json").write_text(result.to_json())
    with pytest.raises(InputError, match=f"0123 4567.*{finished.result.data_digest}"):
        write_report(run, data_dir=finished.data_dir)


def test_report_that_cannot_be_written_leaves_nothing(finished, tmp_path):
    run = shutil.copytree(finished.workdir, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    output = tmp_path / "page.html"
    output.mkdir()
    with pytest.raises(InputError, match=str(output)):
        write_report(run, output=output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "run"]
    assert not list(output.iterdir())


def test_report_writes_the_page_and_shows_progress_and_path_on_a_terminal(finished, tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True)
    output = tmp_path / "new" / "page.html"
    report(ReportOptions(finished.workdir, finished.data_dir, output), console)
    printed = console.file.getvalue()
    assert "embedding gallery" in printed
    assert f"The report is in {output}" in printed
    written = r"Written [\d-]+ [\d:]+ UTC"
    assert re.sub(written, "", output.read_text()) == re.sub(written, "", finished.html)


def test_parse_takes_the_run_directory_as_argument_or_flag():
    expected = ReportOptions(Path("run"), Path("data"))
    for words in (["run"], ["--workdir", "run"], ["--workdir=run"]):
        assert parse([*words, "--data-dir", "data"]) == expected
        assert parse(["--data_dir", "data", *words]) == expected


def test_command_prints_errors_in_one_line_or_with_traceback(tmp_path):
    init_run_directory(report_config("market1501"), tmp_path)
    program = f"""
import contextlib
from rmgl_jax.report.command import main
with contextlib.suppress(SystemExit):
    main(["--workdir", {str(tmp_path)!r}])
main([{str(tmp_path)!r}, "--debug"])
"""
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "1000"},
    )
    assert found.stdout.startswith(f"Error: {tmp_path} has nothing to report yet")
    assert found.stdout.count("\n") == 1
    assert found.returncode == 1
    assert found.stderr.count("Traceback") == 1
    assert "MissingFileError" in found.stderr
