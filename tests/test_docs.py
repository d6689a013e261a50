"""Every command and program that the documentation shows can be given as it stands there."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rmgl_jax.experiment import cross_dataset, run, sweep
from tests.trained_run import write_run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_CARDS = sorted((ROOT / "experiments").glob("*.py"))


def commands() -> list[tuple[str, str]]:
    """All `python -m` and `make` lines of pages and run cards, by where they stand."""
    found = []
    for path in [*PAGES, *RUN_CARDS]:
        text = path.read_text().replace("\\\n", " ")
        for line in re.findall(r"(?:^|`)\s*((?:python -m|make) [^`\n]+)", text, re.MULTILINE):
            found.append((path.name, line.split("  #")[0].strip()))
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_command_is_understood(page, command, monkeypatch):
    words = [word for word in shlex.split(command) if word != "..."]
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    module = importlib.import_module(words[2])
    if words[2] == "experiments.evaluate":
        cross_dataset._parse(cross_dataset.EvaluateOptions, "", words[3:])
    elif words[2].startswith("experiments.table4"):
        cross_dataset._parse(cross_dataset.TableOptions, "", words[3:])
    elif hasattr(module, "SWEEP"):
        options = sweep.parse(module.SWEEP, "", words[3:])
        assert sweep.choose_rows(module.SWEEP, options.rows)
    elif words[2].startswith("experiments."):
        options = run.parse(module.PRESETS, "", words[3:])
        assert options.preset in module.PRESETS
    else:
        assert (ROOT / Path(*words[2].split("."))).exists() or module.__file__


def test_the_search_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    write_run(tmp_path / "runs" / "market", "market1501", {1: None})
    (tmp_path / "crops").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 255, (40, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "crops" / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    # The first crop is its own nearest.
    assert re.match(r"\['a\.jpg', '[bc]\.jpg', '[bc]\.jpg'\]", capsys.readouterr().out)


def test_relative_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_are_of_this_project_alone():
    for page in PAGES:
        assert not re.search(r"/(work|home|root|tmp)/", page.read_text()), page.name
