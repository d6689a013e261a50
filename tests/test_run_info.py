"""A run records command, commit, devices and versions."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from data_prep.errors import InputError
from rmgl_jax.training.run_info import commit_of, read_run_info, run_info, save_run_info
from tests.flipped_bits import assert_flips_are_noticed

ROOT = Path(__file__).parents[1]


def test_run_info_describes_this_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["ignored", "--workdir", "my runs"])
    found = run_info()
    # Of pytest's process.
    assert found["command"].startswith("python ")
    assert found["command"].endswith(" --workdir 'my runs'")
    assert found["device"] == f"{len(jax.devices())} x cpu"
    assert f"jax {jax.__version__}, " in found["versions"]
    assert found["commit"] == commit_of(ROOT)


def test_commit_of_a_checkout():
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout")
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    commit = commit_of(ROOT).removesuffix("-dirty")
    assert len(commit) >= 12
    assert head.startswith(commit)


def test_commit_of_another_directory_is_none(tmp_path):
    assert commit_of(tmp_path) is None
    # An installed copy may lie inside of another project's checkout.
    assert commit_of(ROOT / "tests") is None


def test_save_run_info_keeps_the_first_record(monkeypatch, tmp_path):
    assert read_run_info(tmp_path) == {}
    save_run_info(tmp_path)
    first = read_run_info(tmp_path)
    monkeypatch.setattr(sys, "argv", ["other"])
    assert first == run_info() | {"command": first["command"]}
    save_run_info(tmp_path)
    assert read_run_info(tmp_path) == first


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "3",
        "[1]",
        '{"command": 3}',
        "[[1, 2]]",
        '{"comand": "x"}',
        '{"command": "\\ud800"}',
        9000 * "[",
    ],
)
def test_read_run_info_refuses_a_damaged_record(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        read_run_info(tmp_path)


def test_read_run_info_reads_a_record_without_a_digest(tmp_path):
    """Earlier versions wrote none."""
    (tmp_path / "run.json").write_text('{"command": "python", "commit": null}')
    assert read_run_info(tmp_path) == {"command": "python", "commit": None}


def test_read_run_info_refuses_or_ignores_every_flipped_bit(tmp_path):
    save_run_info(tmp_path)
    content, expected = (tmp_path / "run.json").read_bytes(), read_run_info(tmp_path)

    def read(path):
        path.rename(tmp_path / "run.json")
        return read_run_info(tmp_path)

    assert_flips_are_noticed(content, read, expected)
