"""Expected errors are one line with status 1; bugs keep their traceback."""

import errno
import io
import sys

import pytest
from rich.console import Console

from data_prep.errors import InputError, MissingFileError, MissingPackageError, WriteError
from rmgl_jax.runtime import DistributedOptions, report_errors


def run(error, debug=False):
    """Returns the printed text and the exit status."""
    output = io.StringIO()
    with pytest.raises(SystemExit) as caught, report_errors(Console(file=output), debug):
        raise error
    return output.getvalue(), caught.value.code


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (InputError, ValueError),
        (MissingFileError, FileNotFoundError),
        (MissingPackageError, ImportError),
        (WriteError, OSError),
    ],
)
def test_report_errors_prints_expected_errors_in_one_line(kind, builtin):
    printed, status = run(kind("--width must be positive, got [red]-3"))
    assert printed == "Error: --width must be positive, got [red]-3\n"
    assert status == 1
    assert issubclass(kind, builtin)


def test_report_errors_replaces_control_characters_but_line_ends():
    printed, _ = run(InputError("2 bad files:\n\x1b[2Ja.png\n\x9bb.png"))
    assert printed.replace("\N{REPLACEMENT CHARACTER}", "?") == (
        "Error: 2 bad files:\n?[2Ja.png\n?b.png\n"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENAMETOOLONG])
def test_report_errors_prints_conditions_of_the_storage(number):
    printed, status = run(OSError(number, "reason", "/file"))
    assert "reason" in printed
    assert "/file" in printed
    assert status == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a shape bug"),
        RuntimeError("out of memory"),
        ImportError("a typo"),
        OSError(errno.EBADF, "x"),
    ],
)
def test_report_errors_leaves_bugs_their_traceback(error):
    with pytest.raises(type(error)) as caught, report_errors(Console(file=io.StringIO())):
        raise error
    assert caught.value is error


def test_report_errors_with_debug_leaves_every_error_its_traceback():
    for error in (InputError("x"), OSError(errno.ENOSPC, "x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), report_errors(Console(file=io.StringIO()), debug=True):
            raise error


def test_report_errors_exits_with_130_on_ctrl_c():
    printed, status = run(KeyboardInterrupt())
    assert len(printed.splitlines()) == 1
    assert status == 130


def test_report_errors_lets_text_be_printed_that_the_encoding_lacks(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    console = Console()
    with report_errors(console):
        console.print("step 1/3 · loss")
    sys.stdout.flush()
    assert written.getvalue() == b"step 1/3 ? loss\n"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"coordinator": "host:1", "processes": 2, "process": 0}, "--distributed.enabled"),
        ({"process": 1}, "--distributed.process requires --distributed.enabled"),
        ({"enabled": True, "coordinator": "host:1"}, "--distributed.processes"),
        (
            {"enabled": True, "coordinator": "host", "processes": 2, "process": 0},
            "HOST:PORT.* host",
        ),
        ({"enabled": True, "coordinator": "host:1", "processes": 2, "process": 2}, "got 2 of 2"),
        ({"enabled": True, "coordinator": "host:1", "processes": 2, "process": -1}, "got -1 of 2"),
        ({"enabled": True, "processes": 0}, "got None of 0"),
        ({"enabled": True, "start_timeout": 0}, "start-timeout.* got 0"),
        ({"enabled": True, "heartbeat_timeout": 10**9}, "heartbeat-timeout.* got 1000000000"),
    ],
)
def test_distributed_options_that_do_not_fit_are_refused(options, named):
    with pytest.raises(InputError, match=named):
        DistributedOptions(**options)
