"""Locks that name their holder and end with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import WriteError
from data_prep.files import held


def test_held_refuses_a_second_holder_and_names_the_first(tmp_path):
    path = tmp_path / "new" / ".lock"
    with held(path):
        with (
            pytest.raises(WriteError, match=rf"{path.parent} .*process {os.getpid()} on .*\. Wait"),
            held(path, "Wait."),
        ):
            pytest.fail("locked twice")
        assert path.exists()  # The refused one has not removed it.
    assert list(path.parent.iterdir()) == []
    with held(path):
        pass


def test_held_is_released_by_an_error(tmp_path):
    with pytest.raises(KeyError), held(tmp_path / ".lock"):
        raise KeyError
    with held(tmp_path / ".lock"):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_held_is_released_by_the_death_of_its_holder(tmp_path):
    path = tmp_path / ".lock"
    program = (
        "import sys; from pathlib import Path; from data_prep.files import held\n"
        "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WriteError, match=f"process {holder.pid} on "), held(path):
            pytest.fail("locked twice")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with held(path):
            assert path.read_text().startswith(f"process {os.getpid()} on ")


def test_held_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match=r"file/run .*Not a directory"),
        held(tmp_path / "file" / "run" / ".lock"),
    ):
        pytest.fail("locked")
