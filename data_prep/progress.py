"""Progress bars and notes on standard error."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


def note(message: str) -> None:
    """Prints one line."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        printable(message, "\n"), markup=False
    )


def printable(text: str, kept: str = "") -> str:
    """Replaces control characters, with which a file's name could steer the terminal.

    Args:
      text: the text.
      kept: control characters that stay.
    """
    return "".join(c if c.isprintable() or c in kept else "\N{REPLACEMENT CHARACTER}" for c in text)


def replace_unprintable() -> None:
    """Lets standard output print "?" for what its encoding lacks, where printing would fail.

    Standard error does so by itself.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def track(items: Iterable[T], sizes: Sequence[int], description: str) -> Iterator[T]:
    """Yields the items under a progress bar that advances by the size of each."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(description, total=sum(sizes))
        for size, item in zip(sizes, items, strict=True):
            yield item
            progress.advance(task, size)
