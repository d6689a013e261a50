"""The page of the distributions links to files of the repository by absolute addresses."""

import configparser
import importlib.util
import re
import shutil
from pathlib import Path

import pytest

from data_prep.errors import InputError, MissingFileError
from rmgl_jax import __version__

ROOT = Path(__file__).parents[1]
URL = "https://example.org/people/rmgl_jax"
spec = importlib.util.spec_from_file_location("distributions", ROOT / "docs" / "distributions.py")
distributions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(distributions)


@pytest.fixture
def source(tmp_path):
    """The files of a checkout that the page and the metadata are made of."""
    (tmp_path / "rmgl_jax").mkdir()
    for name in ("setup.cfg", "rmgl_jax/__init__.py", "CONTRIBUTING.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    return tmp_path


def test_absolute_links_replace_every_relative_one():
    page = (ROOT / "README.md").read_text()
    published = distributions.absolute_links(ROOT / "README.md", "v1.2.0", URL)
    targets = re.findall(r"\]\(([^)]*)\)", published)
    assert all(target.startswith("https://") for target in targets)
    assert f"]({URL}/raw/v1.2.0/docs/images/report.png)" in published
    assert f"]({URL}/blob/v1.2.0/docs/reproduction.md)" in published
    # Nothing else changes.
    assert re.sub(rf"{URL}/(blob|raw)/v1\.2\.0/", "", published) == page


def test_absolute_links_keep_places_and_addresses(tmp_path):
    (tmp_path / "a.md").touch()
    page = tmp_path / "page.md"
    page.write_text("[a](a.md#b), [c\nd](https://e.org/f.md), [g](#h), `x[0](y)`, ![i](a.md)")
    assert distributions.absolute_links(page, "v1", URL) == (
        f"[a]({URL}/blob/v1/a.md#b), [c\nd](https://e.org/f.md), [g](#h), `x[0](y)`, "
        f"![i]({URL}/raw/v1/a.md)"
    )


def test_absolute_links_refuse_a_missing_file(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](b.md)")
    with pytest.raises(MissingFileError, match=r"b\.md"):
        distributions.absolute_links(page, "v1", URL)


def test_distributions_have_the_page_and_name_the_repository(source):
    distributions.name_the_repository(source, f"v{__version__}", URL)
    setup = configparser.ConfigParser()
    setup.read(source / "setup.cfg")
    kind, _, name = setup["metadata"]["long_description"].partition(": ")
    assert kind == "file"
    assert f"]({URL}/blob/v{__version__}/docs/" in (source / name).read_text()
    assert f"Source = {URL}" in setup["metadata"]["project_urls"].splitlines()
    # The README itself keeps links that work in every copy.
    assert (source / "README.md").read_text() == (ROOT / "README.md").read_text()


def test_distributions_refuse_the_tag_of_another_version(source):
    with pytest.raises(InputError, match=re.escape(__version__)):
        distributions.name_the_repository(source, "v0.0.1", URL)
