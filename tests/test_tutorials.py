"""The tutorials are followed, one after another, on a few rendered pedestrians.

Every shell line and every program of a page is run as the page shows it, but for the sizes in
SMALLER and the lines in LEFT_OUT. The last tutorial has a test of its own (test_extending.py).
"""

import json
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import table5_components
from rmgl_jax import cli
from rmgl_jax.config import LossConfig
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.results import Row

pytestmark = pytest.mark.network

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"

SMALLER = {
    "synthetic/demo": "synthetic/tiny",
    "demo-1.0.0": "tiny-1.0.0",
    "--preset demo": "--preset tiny --model.last-stage res4",
    "--seeds 3": "--seeds 1",
    "0141_c1s4_051151_00.jpg": "0021_c1s4_021151_00.jpg",
    # Eight persons are too few for the default rates.
    "--output runs/demo.safetensors": "--output runs/demo.safetensors --rates 0.5",
    # The network of the first tutorial, which is compiled already.
    "--preset cpu": "--preset cpu --model.width 4 --model.embed-dim 16 --train.num-ids 8 "
    "--train.epochs 1 --optimizer.decay-epochs 2 3 --train.evaluate-every 0",
}
LEFT_OUT = (
    "make demo",  # trains as `rmgl train` in the first tutorial does
    "python3 -m venv",
    "source ",
    "pip ",
    "rmgl gallery serve",  # runs until it is stopped; test_serve_command.py has it
    "python -m experiments.table5_components --preset gpu",  # needs Market-1501
)


def blocks(page):
    """Pairs of language and text, in the order of the page."""
    text = (TUTORIALS / page).read_text()
    for full, small in SMALLER.items():
        text = text.replace(full, small)
    return re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.M | re.S)


def follow(page):
    """Does what the page says, in the current directory."""
    for language, text in blocks(page):
        if language == "python":
            exec(compile(text, page, "exec"), {})
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if not line.startswith(LEFT_OUT):
                run_line(line)


def run_line(line):
    """Runs one command, if possible in this process, which has the imports and programs."""
    words = shlex.split(line.partition(" | ")[0], comments=True)
    if words[:2] == ["rmgl", "gallery"]:
        # A process of its own: the engine has threads, which do not go with those of a test.
        command = [sys.executable, "-m", "rmgl_jax", *words[1:]]
        print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    elif words[0] == "rmgl":
        cli.main(words[1:])
    else:
        assert words[:2] == ["python", "-m"], line
        sys.argv = words[2:]
        # Another test may have imported it, which runpy warns about.
        sys.modules.pop(words[2], None)
        runpy.run_module(words[2], run_name="__main__")


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A directory in which the first tutorial was followed."""
    folder = tmp_path_factory.mktemp("walk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", sys.argv)
        patch.setenv("COLUMNS", "300")  # tables show long paths whole
        follow("ten_minutes.md")
        yield folder


def test_ten_minutes_ends_in_a_report(walk):
    page = (walk / "runs" / "demo" / "report.html").read_text()
    assert "synthetic/tiny" in page
    assert page.count("data:image/jpeg") > 10


def test_own_images_end_in_ranked_lists(walk, capsys):
    follow("train_on_your_images.md")
    assert "folder/mine" in capsys.readouterr().out
    assert "data:image/jpeg" in (walk / "runs" / "mine" / "report.html").read_text()
    assert (walk / "runs" / "mine" / "scores.json").exists()


def test_table_has_both_rows(walk):
    follow("reproduce_a_table.md")
    table = (walk / "runs" / "components" / "table5_components.md").read_text()
    rows = re.findall(r"^\| (2-stripe\S*) ", table, re.M)
    assert {"2-stripe", "2-stripe+RP+ABP+RSA"} <= set(rows)


def test_row_to_add_changes_only_the_smoothing():
    text = (TUTORIALS / "reproduce_a_table.md").read_text()
    (program,) = re.findall(r"^```py\n(.*?)^```$", text, re.M | re.S)
    namespace = {"replace": replace, "presets": presets, "Row": Row}
    exec(compile(f"row, = {program}", "reproduce_a_table.md", "exec"), namespace)
    row, base = namespace["row"], presets.small("synthetic/demo", 24)
    baseline = presets.components(base, (2,))
    assert row.overrides(base) == replace(baseline, loss=LossConfig(label_smoothing=0.1))
    assert row.baseline in {other.name for other in table5_components.ROWS}


@pytest.mark.parametrize(("page", "printed"), [("protocol.md", "0.83 0.79\n"), ("resume.md", "")])
def test_programs_of_explanations_run(page, printed, capsys):
    text = (TUTORIALS.parent / "explanation" / page).read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    exec(compile(program, page, "exec"), {})
    assert capsys.readouterr().out == printed


def test_every_tutorial_is_followed():
    source = Path(__file__).read_text()
    pages = {path.name for path in TUTORIALS.glob("*.md")} - {"index.md", "change_the_network.md"}
    assert {page for page in pages if f'follow("{page}")' in source} == pages


def test_search_finds_the_person_that_was_added(walk, capsys):
    pytest.importorskip("milvus_lite", reason="galleries need the extra `gallery`")
    follow("search_your_crops.md")
    listed = capsys.readouterr().out
    gallery = walk / "runs/data/synthetic_images/tiny-1.0.0/bounding_box_test"
    assert "bounding_box_test/" in listed
    # An image of the gallery is its own nearest image.
    image = sorted(gallery.glob("0*.jpg"))[-1]
    run_line(f"rmgl gallery search runs/gallery {image} --top 1 --json")
    (match,) = json.loads(capsys.readouterr().out)
    assert Path(match["path"]).name == image.name
