"""Imports point downwards and form no cycle. The contracts are in pyproject.toml."""

import graphlib
import subprocess
import sys
from pathlib import Path

import grimp
from importlinter import api

ROOT = Path(__file__).parents[1]


def test_import_contracts_are_kept():
    # In a process of its own, because the command reconfigures logging.
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_cycle_between_single_modules():
    # The contracts compare siblings. A package and a module in it can form a cycle, too.
    options = api.read_configuration(str(ROOT / "pyproject.toml"))["session_options"]
    graph = grimp.build_graph(*options["root_packages"], cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 100
    graphlib.TopologicalSorter(imports).prepare()  # Raises CycleError, which lists the cycle.
