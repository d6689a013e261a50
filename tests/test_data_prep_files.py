import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import InputError, MissingFileError
from data_prep.files import check_file, expand, read_file, write_bytes


def test_read_file_gives_the_content_of_a_file_or_a_link_to_it(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "file", 7) == read_file(tmp_path / "link", 7) == b"content"
    assert check_file(tmp_path / "link") == 7
    (tmp_path / "empty").touch()
    assert read_file(tmp_path / "empty", 0) == b""


def test_home_directories_are_expanded_or_refused(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert expand("~/runs") == Path("/home/someone/runs")
    assert expand(Path("runs/~")) == Path("runs/~")
    with pytest.raises(InputError, match=re.escape("~no-such-user/runs")):
        expand("~no-such-user/runs")


def make(path, kind):
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a fifo":
        os.mkfifo(path.with_name("fifo"))
        path.symlink_to("fifo")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "large":
        path.touch()
        os.truncate(path, 2**40)
    elif kind == "dangling":
        path.symlink_to("nowhere")


KINDS = ["fifo", "link to a fifo", "device", "directory", "loop", "large", "dangling", "missing"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("read", [read_file, check_file])
def test_read_file_refuses_what_is_not_a_bounded_file(tmp_path, kind, read):
    path = tmp_path / "it"
    make(path, kind)
    expected = MissingFileError if kind in ("dangling", "missing") else InputError
    with pytest.raises(expected, match=str(path)):
        read(path, 2**20)


def test_replacing_removes_what_a_killed_process_left(tmp_path):
    program = (
        "import os, signal, sys; from pathlib import Path; from data_prep.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as unfinished:\n"
        "    unfinished.touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "file[1]"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program, path], env=environment)
    (left,) = tmp_path.iterdir()
    # Another process of this machine is writing, and one of another machine may be.
    living = tmp_path / left.name.replace(
        f"-{left.name.split('-')[-1]}", f"-{os.getppid()}.partial"
    )
    foreign = tmp_path / f".file[1].elsewhere-{left.name.split('-')[-1]}"
    for other in (living, foreign):
        other.touch()
    write_bytes(path, b"whole")
    assert {*tmp_path.iterdir()} == {path, living, foreign}
    assert path.read_bytes() == b"whole"


@pytest.mark.parametrize("kind", ["fifo", "device", "directory"])
def test_replacing_keeps_what_is_not_a_file(tmp_path, kind):
    path = tmp_path / "it"
    make(path, kind)
    with pytest.raises(InputError, match=str(path)):
        write_bytes(path, b"whole")
    assert [*tmp_path.iterdir()] == [path]
    assert not path.is_file()
