"""The distribution holds the files that the packages read."""

import configparser
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("rmgl_jax", "data_prep")


def test_every_data_file_is_installed():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["*"].split(", ")
    data = {
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert {Path(package, "py.typed") for package in PACKAGES} < data
    assert [path for path in data if not any(map(path.match, patterns))] == []


def test_only_the_library_is_installed():
    try:
        installed = metadata.distribution("rmgl_jax")
    except metadata.PackageNotFoundError:
        pytest.skip("rmgl_jax is not installed, only imported")
    assert set(installed.read_text("top_level.txt").split()) == set(PACKAGES)
    (command,) = installed.entry_points.select(group="console_scripts")
    assert (command.name, command.value) == ("rmgl", "rmgl_jax.cli:run")
