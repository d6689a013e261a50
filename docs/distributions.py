"""Builds the source distribution and the wheel of a tag, whose page on PyPI has absolute links.

    python docs/distributions.py v0.2.0 --url https://github.com/OWNER/rmgl_jax

PyPI shows README.md, where links between files of the repository lead nowhere. The page of the
distributions is the README with links to `URL/blob/TAG/FILE`, and pictures from
`URL/raw/TAG/FILE`, as GitHub and GitLab serve them. The repository itself keeps relative links,
which work in every copy. Writes to `dist/`; the package `build` is required.
"""

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from data_prep.errors import InputError, MissingFileError
from data_prep.files import write_text

ROOT = Path(__file__).parents[1]
# Code, or a link or picture of Markdown: an exclamation mark, the text, the file, the place in it.
LINK = re.compile(r"```.*?```|`[^`]*`|(!?)\[([^][]*)\]\(([^()\s#]+)(#[^()\s]*)?\)", re.DOTALL)


def main() -> None:
    """Builds the distributions of a tag."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag")
    parser.add_argument("--url", required=True, help="address of the repository")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "rmgl_jax")
        extract(arguments.tag, source)
        name_the_repository(source, arguments.tag, arguments.url)
        build = [sys.executable, "-m", "build", "--outdir", str(arguments.output), str(source)]
        subprocess.run(build, check=True)


def extract(tag: str, folder: Path) -> None:
    """Writes the files of a tag into a folder.

    Raises:
        subprocess.CalledProcessError: there is no such tag.
    """
    archive = folder.with_suffix(".tar")
    command = ["git", "archive", "--output", str(archive), f"refs/tags/{tag}"]
    subprocess.run(command, cwd=ROOT, check=True)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")


def name_the_repository(source: Path, tag: str, url: str) -> None:
    """Gives the distributions of a source tree their page, and a link to the repository.

    Raises:
        InputError: the tree has another version than the tag.
        MissingFileError: its README links to a file that it does not hold.
    """
    version = re.search(r'__version__ = "(.*)"', (source / "rmgl_jax/__init__.py").read_text())
    if version is None or tag != f"v{version[1]}":
        raise InputError(f"the tag {tag} is of version {version and version[1]}.")
    write_text(source / "PYPI.md", absolute_links(source / "README.md", tag, url))
    setup = (source / "setup.cfg").read_text()
    setup = setup.replace("file: README.md", "file: PYPI.md")
    setup = setup.replace("project_urls =\n", f"project_urls =\n    Source = {url}\n")
    write_text(source / "setup.cfg", setup)


def absolute_links(page: Path, tag: str, url: str) -> str:
    """Returns the text of a page with absolute links in place of links to files.

    Raises:
        MissingFileError: a link leads to a file that does not exist.
    """

    def absolute(link: re.Match[str]) -> str:
        mark, text, target, anchor = link.groups(default="")
        if not target or ":" in target:
            return link[0]
        if not (page.parent / target).exists():
            raise MissingFileError(f"{page.name} links to {target}, which does not exist.")
        return f"{mark}[{text}]({url}/{'raw' if mark else 'blob'}/{tag}/{target}{anchor})"

    return LINK.sub(absolute, page.read_text())


if __name__ == "__main__":
    main()
