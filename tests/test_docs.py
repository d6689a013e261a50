"""Commands and programs in the documentation and in run cards are valid as they are written."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

from rmgl_jax import cli
from rmgl_jax.experiment import options
from rmgl_jax.experiment.calibrate_command import CalibrateOptions
from rmgl_jax.experiment.compress_command import CompressOptions
from rmgl_jax.experiment.initial_weights import check_initial_weights
from rmgl_jax.experiment.presets import presets_for
from rmgl_jax.experiment.sweep import choose_rows
from rmgl_jax.gallery.compare_command import CompareOptions
from rmgl_jax.gallery.embed_command import EmbedOptions
from tests.trained_run import write_run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted((ROOT / "experiments").glob("*.py"))
SOURCES += sorted((ROOT / "rmgl_jax" / "experiment").glob("*_command.py"))


OPTIONS = {
    "embed": EmbedOptions,
    "compare": CompareOptions,
    "compress": CompressOptions,
    "calibrate": CalibrateOptions,
}


def check_weights(found, arguments: list[str]) -> None:
    """Checks that a command that trains would not be refused for having no weights.

    Only the name of a program, or options that end in "...", are no whole command.
    """
    if arguments and "..." not in arguments and not getattr(found, "only_draw", False):
        check_initial_weights(found.experiment, found.weights, found.from_scratch)


def commands() -> list[tuple[str, str]]:
    """All lines of `python -m`, `make` and `rmgl` with the name of their file."""
    found = []
    for path in [*PAGES, *SOURCES]:
        text = path.read_text().replace("\\\n", " ")
        pattern = r"(?:^|`)\s*((?:python -m|make|rmgl) [^`\n]+)"
        for line in re.findall(pattern, text, re.MULTILINE):
            found.append((path.name, line.split("  #")[0].strip()))
    return found


def parse(module_name: str, words: list[str]) -> None:
    """Parses a command line of `python -m` with the parser that the module uses."""
    arguments = [word for word in words if word != "..."]
    module = importlib.import_module(module_name)
    if module_name == "experiments.evaluate":
        options.parse_evaluate("", arguments)
    elif module_name == "experiments.table4_cross_dataset":
        options.parse_cross_dataset("", arguments)
    elif hasattr(module, "SWEEP"):
        found = options.parse_sweep(module.SWEEP, "", arguments)
        assert choose_rows(module.SWEEP, found.rows)
        check_weights(found, words)
    elif module_name.startswith("experiments."):
        check_weights(options.parse_run(module.PRESETS, "", arguments), words)
    else:
        # Commands of other packages: their own tests parse them.
        assert module.__file__


def parse_rmgl(command: str, words: list[str]) -> None:
    """Parses a command line of `rmgl`."""
    arguments = [word for word in words if word != "..."]
    assert command in cli.COMMANDS
    if command == "train":
        dataset = options.find_value(arguments, "--dataset", "market1501")
        check_weights(options.parse_run(presets_for(dataset), "", arguments), words)
    elif command == "evaluate" and arguments:
        options.parse_evaluate("", arguments)
    elif command in OPTIONS and arguments:
        tyro.cli(OPTIONS[command], args=arguments)


@pytest.mark.parametrize(("page", "command"), commands())
def test_command_is_valid(page, command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "rmgl":
        parse_rmgl(words[1], words[2:])
    else:
        parse(words[2], words[3:])


@pytest.mark.parametrize("command", ["--preset gpu --no-such-option", "--preset none"])
def test_invalid_command_is_noticed(command):
    with pytest.raises((SystemExit, ValueError)):
        parse("experiments.market_rmgl", command.split())
    with pytest.raises((SystemExit, ValueError)):
        parse("experiments.table5_components", command.split())
    with pytest.raises(ValueError, match="no row 2-strip;"):
        parse("experiments.table5_components", ["--rows", "2-strip"])


def test_docs_have_commands():
    assert len(commands()) > 60
    assert {command.split()[0] for _, command in commands()} == {"python", "make", "rmgl"}


@pytest.mark.network
def test_program_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    write_run(tmp_path / "runs" / "market", "market1501", {1: None})
    (tmp_path / "crops").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 255, (40, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "crops" / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    # The nearest image of the first crop is the crop itself.
    assert re.match(r"\['a\.jpg', '[bc]\.jpg', '[bc]\.jpg'\]", capsys.readouterr().out)


def test_relative_links_exist():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_name_no_machine_paths():
    for page in PAGES:
        assert not re.search(r"/(work|home|root|tmp)/", page.read_text()), page.name
