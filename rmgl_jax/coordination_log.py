"""Filters standard error: one sentence in place of the log and stack of JAX's coordination service.

JAX's runtime ends a process by SIGABRT if another process of the run is lost. Python cannot prevent
that, so that `start_jax` runs this file as a program of its own between the runtime's standard
error and the terminal. It imports nothing slow.
"""

import re
import signal
import sys
from collections.abc import Iterable
from typing import BinaryIO

REPORTED = b"\0reported\n"
"""A line that the process writes when it has printed its own sentence."""
_HEADER = re.compile(rb"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([^ :]+):\d+\] ")
_FILES = {
    b"client.h",
    b"coordination_service.cc",
    b"coordination_service_agent.cc",
    b"preemption_sync_manager.cc",
}


def filter_lines(lines: Iterable[bytes], output: BinaryIO) -> None:
    """Copies lines until they end, and explains a fatal error of the coordination service.

    Args:
        lines: what the runtime writes; each message is a line with a header, and lines without.
        output: gets the lines of all other messages at once; those of the coordination service at
            the end, or instead of them a sentence if one of them is fatal. Nothing more comes
            after `REPORTED`.
    """
    held, is_held, is_fatal = b"", False, False
    for line in lines:
        if line.endswith(REPORTED):
            return
        if header := _HEADER.match(line):
            level, file = header.groups()
            is_held = file in _FILES
            is_fatal |= is_held and level == b"F"
        if is_held:
            held += line
        else:
            output.write(line)
            output.flush()
    output.write(explain(held.decode(errors="replace")).encode() if is_fatal else held)
    output.flush()


def explain(log: str) -> str:
    """The sentence for the log of a fatal error."""
    if "RegisterTask" in log:
        return (
            "Error: Not all processes of the run have come within the time that "
            "--distributed.start-timeout gives.\n"
        )
    lost = re.search(r"stopped sending heartbeats\):\s+(\d+)", log)
    if "leader task" in log:
        name = "process 0"
    else:
        name = f"process {lost[1]}" if lost else "another process"
    return f"Error: Stopped, because {name} of the run has ended or cannot be reached.\n"


if __name__ == "__main__":
    # Signals for all processes of a terminal or job are the run's to handle.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    filter_lines(sys.stdin.buffer, sys.stderr.buffer)
