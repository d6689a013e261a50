"""The promises of SECURITY.md that can be read from the code or observed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_trees import write_market

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("rmgl_jax/**/*.py"), *ROOT.glob("data_prep/**/*.py")])
UNPICKLERS = {"cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
NETWORK = {"aiohttp", "ftplib", "http", "httpx", "requests", "socket", "urllib.request", "urllib3"}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, and their top-level packages."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {part for name in node.names for part in (name.name, name.name.split(".")[0])}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, node.module.split(".")[0]}
    return found


def calls(path: Path) -> list[tuple[str, dict[str, str]]]:
    """The calls in a file: the function as it is written, and its keyword arguments."""
    return [
        (
            ast.unparse(node.func),
            {word.arg or "**": ast.unparse(word.value) for word in node.keywords},
        )
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def test_only_the_worker_pipes_unpickle():
    users = {path.relative_to(ROOT).as_posix() for path in SOURCES if imports(path) & UNPICKLERS}
    assert users == {"data_prep/workers.py"}
    for path in SOURCES:
        for function, keywords in calls(path):
            assert keywords.get("allow_pickle", "False") == "False", path
            if function == "torch.load":
                assert keywords["weights_only"] == "True", path


def test_nothing_evaluates_text_or_starts_a_shell():
    for path in SOURCES:
        for function, keywords in calls(path):
            assert function not in ("eval", "exec", "os.system", "os.popen"), path
            assert "shell" not in keywords, path


def test_only_the_search_page_opens_connections_itself():
    users = {path.relative_to(ROOT).as_posix() for path in SOURCES if imports(path) & NETWORK}
    assert users == {"rmgl_jax/gallery/serve_command.py"}


WATCHED = """
import sys

def watch(event, arguments):
    if event.startswith("socket.") and event != "socket.gethostname":
        print(event, arguments, flush=True)

sys.addaudithook(watch)
from rmgl_jax.data.store import decode_split
from tests.tiny_trees import prepare_partial

builder = prepare_partial("market1501", sys.argv[1], sys.argv[2])
decode_split(builder, "train", (16, 8))
"""


@pytest.mark.network
def test_preparing_and_decoding_open_no_connection(tmp_path):
    source = write_market(tmp_path / "Market-1501")
    command = [sys.executable, "-c", WATCHED, source, tmp_path / "tfds"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout == ""
