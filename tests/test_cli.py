"""The command `rmgl`."""

import importlib
import subprocess
import sys

import pytest

from rmgl_jax import __version__, cli


def test_usage_lists_every_command(capsys):
    cli.main([])
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in cli.COMMANDS)


def test_version_is_printed(capsys):
    cli.main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_unknown_command_exits_with_status_2(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["trian"])
    assert caught.value.code == 2
    assert "'trian'" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert not caught.value.code
    assert "usage" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_a_main(name):
    assert callable(importlib.import_module(cli.COMMANDS[name].module).main)


def test_module_runs_as_the_command():
    run = subprocess.run(
        [sys.executable, "-m", "rmgl_jax", "--help"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == cli.usage()


def test_output_that_nobody_reads_ends_without_a_traceback():
    """As with `rmgl train --help-all | head -1`."""
    command = [sys.executable, "-c", "from rmgl_jax import cli; cli.run()", "train", "--help-all"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (1, "")
