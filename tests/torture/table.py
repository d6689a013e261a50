"""The table of a campaign: on the console, and between two markers of a Markdown page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from data_prep.errors import InputError
from data_prep.files import write_text
from tests.torture.campaign import GOOD

BEGIN, END = "<!-- campaign: begin -->", "<!-- campaign: end -->"
HEADER = ("faults", "cases", "faults made", "minutes", "good", "defects")
Row = tuple[str, ...]


def rows(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row for each kind of fault, followed by one for each of its subjects."""
    lines: list[Row] = []
    for kind in dict.fromkeys(record["kind"] for record in records):
        mine = [record for record in records if record["kind"] == kind]
        lines.append(_row(kind, mine))
        for subject in sorted({record["subject"] for record in mine}):
            lines.append(_row(f"- {subject}", [r for r in mine if r["subject"] == subject]))
    return lines


def _row(name: str, records: Sequence[Mapping[str, Any]]) -> Row:
    outcomes: Counter[str] = Counter()
    for record in records:
        outcomes[record["outcome"]] += 1 if record["outcome"] not in GOOD else record["count"]
    good = [f"{outcomes[name]} {name}" for name in GOOD if outcomes[name]]
    bad = [f"{count} {name}" for name, count in sorted(outcomes.items()) if name not in GOOD]
    made = sum(record["count"] for record in records)
    minutes = sum(record["seconds"] for record in records) / 60
    cells = (f"{len(records):,}", f"{made:,}", f"{minutes:.1f}")
    return (name, *cells, ", ".join(good) or "0", ", ".join(bad) or "0")


def describe(header: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """Commit, machine, seed and length of a campaign, in a sentence."""
    minutes = max((record["at"] for record in records), default=0.0) / 60
    return (
        f"Commit {header['commit']}, seed {header['seed']}, {minutes:.1f} minutes on "
        f"{header['cores']} cores ({header['machine']}, Python {header['python']})."
    )


def to_rich(header: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Table:
    """The table for a console."""
    title = Text(describe(header, records))
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, name in enumerate(HEADER):
        table.add_column(name, justify="right" if 1 <= number <= 3 else "left", overflow="fold")
    for row in rows(records):
        table.add_row(*map(Text, row))
    return table


def to_markdown(header: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown, with its description."""
    lines = [HEADER, ("---", *("---:",) * 3, "---", "---"), *rows(records)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in lines)
    return f"{describe(header, records)}\n\n{table}"


def write_page(path: Path, markdown: str) -> None:
    """Replaces the text between the markers of a page.

    Raises:
        InputError: the page has no markers.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path} has no lines {BEGIN} and {END}, between which the table goes.")
    write_text(path, f"{before}{BEGIN}\n\n{markdown}\n\n{END}{after}")
