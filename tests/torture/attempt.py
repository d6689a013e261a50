"""One hostile input, ready to be handed to the function that reads it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRONG = "WRONG CONTENT"
"""Printed by a reader that finds another content than the input has."""


@dataclass(frozen=True)
class Attempt:
    """A hostile input and its reader."""

    description: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    must_refuse: bool = False
    """Accepting it is wrong."""


Make = Callable[[Path, Path, random.Random], Attempt]
"""Makes an attempt from the undisturbed files, a directory to work in, and a random generator."""
ODD_WORDS = (
    *("", " ", "-1", "0", "-0", "1", "1e308", "-1e308", "nan", "inf", "9" * 400, "1_000", "0x10"),
    *("18446744073709551616", "9223372036854775807", "2147483648", "4294967295", "1e-320", "½"),
    *("[red]x[/red]", "[/]", "[bold", "\\[", "\\", "{0}", "%s", "$(true)", "`true`", "a" * 5000),
    *("..", "../..", ".", "/", "~", "~nobody/x", "/dev/null", "/dev/zero", "/proc/self/mem"),
    *(
        "a\nb",
        "\r\n",
        "\t",
        "a\x1b[31mb",
        "\u202egnp.a",
        "caf\u0301e",
        "\U0001f600",
        "\udcff\udcfe",
    ),
    *("None", "True", "null", "[]", "{}", "--", "--help=1", "1,2", "(1, 2)", "C:\\x", "file:///x"),
)
"""Words that break programs which print, parse, format or open them without care."""
OUTPUT_WORDS = tuple(word for word in ODD_WORDS if not word.startswith(("/", "..", "~", "file:")))
"""Those that name a file to write inside the working directory."""
