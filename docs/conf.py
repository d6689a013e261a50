"""The documentation site: `make docs` builds it, and a warning is an error."""

import ast
import importlib
import re
from pathlib import Path

import jax
from sphinx.application import Sphinx

import rmgl_jax

ROOT = Path(__file__).parents[1]

project = "rmgl_jax"
author = "the rmgl_jax developers"
copyright = "the rmgl_jax developers, Apache-2.0"
release = rmgl_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = True
# Types of other packages: their sites would have to be asked over the network.
nitpick_ignore_regex = [
    ("py:.*", r"(?!rmgl_jax|data_prep).*"),
    # Type variables, and what Sphinx makes of `Annotated` in the options of commands.
    ("py:class", r".*\.(T|Item|Result)"),
    ("py:class", r".*Annotated\[.*"),
]

# Docstrings are Google's style, with code in single backquotes.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": True}
python_maximum_signature_line_length = 90

myst_heading_anchors = 3

html_theme = "sphinx_book_theme"
html_title = "rmgl_jax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
}


def skip_public(
    app: Sphinx, kind: str, name: str, value: object, skip: bool, options: object
) -> bool | None:
    """Leaves names of the flat API to the page of `rmgl_jax`, so that each is described once."""
    module = getattr(value, "__module__", None)
    flat = kind == "module" and rmgl_jax._MODULE_OF.get(name) == module
    return True if flat else None


def name_outside_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Replaces links to files that are not pages, such as SECURITY.md, by their names."""
    folder = (Path(app.srcdir) / page).parent

    def replace(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        if target.exists() and not target.is_relative_to(app.srcdir):
            return f"`{target.relative_to(ROOT)}`"
        return link[0]

    source[0] = re.sub(r"\[[^\]]*\]\(([^)#:\s]+)\)", replace, source[0])


def list_modules(app: Sphinx, page: str, source: list[str]) -> None:
    """Replaces `<!-- modules: NAMES -->` by a section for each module and those in each package."""

    def replace(comment: re.Match[str]) -> str:
        found = [module for name in comment[1].split() for module in modules_in(name)]
        return "\n".join(map(describe, found))

    source[0] = re.sub(r"<!-- modules: ([^>]+) -->", replace, source[0])


def modules_in(name: str) -> list[str]:
    """The module of a name, or those of a package; an `__init__` without code is left out."""
    path = Path(*name.split("."))
    if (ROOT / path).with_suffix(".py").exists():
        return [name]
    found = []
    for file in sorted((ROOT / path).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__" and len(ast.parse(file.read_text()).body) > 1:
            found.append(".".join(parts[:-1]))
        elif not parts[-1].startswith("__"):
            found.append(".".join(parts))
    return found


def describe(name: str) -> str:
    """The section of a module. Sphinx takes functions with their own gradient for data."""
    own = [
        key
        for key, value in vars(importlib.import_module(name)).items()
        if isinstance(value, jax.custom_vjp) and value.__module__ == name
    ]
    lines = [f".. automodule:: {name}", *(f".. autofunction:: {name}.{key}" for key in own)]
    return "\n".join([f"## {name}", "", "```{eval-rst}", *lines, "```", ""])


def setup(app: Sphinx) -> None:
    """Registers the hooks."""
    app.connect("source-read", list_modules)
    app.connect("source-read", name_outside_files)
    app.connect("autodoc-skip-member", skip_public)
