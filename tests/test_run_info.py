"""A run records command, commit, devices and versions."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rmgl_jax.training import run_info as module
from rmgl_jax.training.run_info import read_run_info, run_info, save_run_info

ROOT = Path(__file__).parents[1]


def test_it_says_what_ran_where(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ignored", "--workdir", "my runs"])
    made = run_info()
    # Of this very process, which is pytest's.
    assert made["command"].startswith("python ")
    assert made["command"].endswith(" --workdir 'my runs'")
    assert made["device"] == f"{len(jax.devices())} x cpu"
    assert f"jax {jax.__version__}, " in made["versions"]


def test_the_commit_is_the_checkouts(monkeypatch):
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    commit = run_info()["commit"].removesuffix("-dirty")
    assert len(commit) >= 12
    assert head.startswith(commit)


def test_an_installed_copy_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert run_info()["commit"] is None


def test_the_first_record_stays(monkeypatch, tmp_path):
    assert read_run_info(tmp_path) == {}
    save_run_info(tmp_path)
    first = read_run_info(tmp_path)
    monkeypatch.setattr(sys, "argv", ["other"])
    assert first == run_info() | {"command": first["command"]}
    save_run_info(tmp_path)
    assert read_run_info(tmp_path) == first


def test_a_damaged_record_is_said_to_be_so(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        read_run_info(tmp_path)
