"""Every example of docs/tutorials/change_the_network.md is applied to copied packages and run."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tutorials" / "change_the_network.md").read_text()
SECTIONS = {
    section.partition("\n")[0]: section
    for section in re.split(r"^## (?=\d\. )", PAGE, flags=re.M)[1:]
}
MOST_FILES = 2


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.M | re.S)


def patched_files(patch: str) -> set[str]:
    """Files of the packages that a patch changes; a new dataset's folder counts as one."""
    paths = re.findall(r"^\+\+\+ b/(\S+)", patch, re.M)
    return {re.sub(r"^(data_prep/my_dataset)/.*", r"\1", path) for path in paths}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The packages with all examples applied, one after another."""
    root = tmp_path_factory.mktemp("extended")
    for package in ("rmgl_jax", "data_prep"):
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for section in SECTIONS.values():
        for patch in blocks(section, "diff"):
            subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=root, check=True)
    return root


def test_page_has_the_five_examples():
    assert len(SECTIONS) == 5


@pytest.mark.parametrize("title", SECTIONS)
def test_example_touches_at_most_two_files(title):
    touched = set().union(*map(patched_files, blocks(SECTIONS[title], "diff")), set())
    assert len(touched) <= MOST_FILES


def test_examples_run_as_the_page_shows(copy):
    """All of them in one process, which asserts what the page says of each."""
    program = "\n".join(code for section in SECTIONS.values() for code in blocks(section, "python"))
    environment = os.environ | {"PYTHONPATH": str(copy)}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
