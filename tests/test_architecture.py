"""Imports point downwards and form no cycle. The contracts are in pyproject.toml."""

import graphlib
from pathlib import Path

import grimp
from importlinter import api, cli

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_import_contracts_are_kept(capsys):
    broken = cli.lint_imports(config_filename=str(PYPROJECT), no_cache=True, no_logo=True)
    assert not broken, capsys.readouterr().out


def test_no_cycle_between_single_modules():
    # The contracts compare siblings. A package and a module in it can form a cycle, too.
    packages = api.read_configuration(str(PYPROJECT))["session_options"]["root_packages"]
    graph = grimp.build_graph(*packages, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 100
    graphlib.TopologicalSorter(imports).prepare()  # Raises CycleError, which lists the cycle.
