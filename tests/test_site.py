"""The documentation site builds without warnings and without the network, and its links hold."""

import ast
import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import rmgl_jax
from tests.browser import headless_browser, needs_browser, set_size

pytest.importorskip("sphinx", reason="the site is built by the extra `docs`")
pytest.importorskip("myst_parser", reason="the site is built by the extra `docs`")

from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[1]
PACKAGES = ("rmgl_jax", "data_prep")


class Page(html.parser.HTMLParser):
    """Anchors, links, and what is loaded when the page is opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors |= {values["id"]} if values.get("id") else set()
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        source = values.get("href") if tag == "link" else values.get("src")
        if source:
            self.loaded.append(source)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site") / "html"
    # The proxies lead nowhere: a build that asks the network fails or warns.
    nowhere = {f"{scheme}_proxy": "http://127.0.0.1:9" for scheme in ("http", "https")}
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    run = subprocess.run(
        [*command, ROOT / "docs", folder],
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text()) for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def documented(site):
    """Kinds of the names in the reference, such as {"rmgl_jax.train": "function"}."""
    inventory = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    return {
        name: kind.removeprefix("py:")
        for kind, names in inventory.data.items()
        if kind.startswith("py:")
        for name in names
    }


def public_names(path):
    """Top-level classes and functions of a module that have no underscore."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name


def test_site_links_lead_to_pages_and_anchors(pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            target, anchor = urldefrag(link)
            if re.match(r"[a-z]+:", target):
                continue
            file = (path.parent / unquote(target)).resolve() if target else path
            if not file.exists() or (
                anchor and file in pages and anchor not in anchors(pages, file)
            ):
                broken.append(f"{path.name}: {link}")
    assert len(pages) > 30
    assert broken == []


def anchors(pages, file):
    return {*pages[file].anchors, "top"}


def test_site_loads_nothing_from_elsewhere(pages):
    elsewhere = {
        (path.name, source)
        for path, page in pages.items()
        for source in page.loaded
        if re.match(r"(https?:)?//", source)
    }
    assert elsewhere == set()


def test_flat_api_is_documented(documented):
    expected = {f"rmgl_jax.{name}" for name in rmgl_jax._MODULE_OF}
    assert expected - set(documented) == set()


def test_every_public_name_is_documented(documented):
    flat = {f"{module}.{name}" for name, module in rmgl_jax._MODULE_OF.items()}
    missing = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            names = [f"{module}.{name}" for name in public_names(path)]
            if parts[-1] != "__main__":
                missing += [name for name in names if name not in documented and name not in flat]
    assert missing == []


def test_every_page_is_found_by_the_search(site, pages):
    """The index of the search is a file of the site, which the browser loads from disk."""
    index = (site / "searchindex.js").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        assert f'"{path.relative_to(ROOT / "docs").with_suffix("")}"' in index


@needs_browser
def test_search_works_from_disk_and_pages_fit_a_phone(site):
    with headless_browser() as browser:
        set_size(browser, 360, 780)
        browser.get(f"{(site / 'search.html').as_uri()}?q=activation+balanced+pooling")
        WebDriverWait(browser, 60).until(
            lambda browser: browser.find_elements(By.CSS_SELECTOR, "#search-results li a")
        )
        found = browser.find_elements(By.CSS_SELECTOR, "#search-results li a")
        assert any("explanation/method" in link.get_attribute("href") for link in found)
        for page in ("index", "explanation/method", "how_to/embeddings", "reference/api"):
            browser.get((site / f"{page}.html").as_uri())
            # A wide table or signature scrolls by itself, and the page does not.
            assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
