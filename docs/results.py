"""Writes the measurements of docs/results into the pages, and checks the figures of their text.

    python docs/results.py            # writes the tables
    python docs/results.py --check    # fails if a page is out of date, or has a figure of its own

A page has the table of `docs/results/NAME.json` between two lines:

    <!-- results: NAME -->
    <!-- end -->

and a section whose sentences quote figures of further files says so: `<!-- quotes: NAME NAME -->`.
`NAME/PART` is one of several tables of a file, or one of its values. There are three kinds of
files:

- A report of a benchmark, written by `--json docs/results/NAME.json`. All its figures are shown,
  with the command, the commit and the machine in a line below. `"columns"`, added by hand, selects
  and formats them; its first column is the row's name.
- `result.json` of a run, or another JSON object, copied. It is not shown itself: texts of other
  files refer to its values, as in `"{NAME[plain][mean_ap]:.1p}"`, where `p` is percent.
- A file made by hand, with `command`, `commit`, `machine`, `versions`, `seeds` and `conditions` as
  far as they are known, and

      "values": {"NAME": number, text, list or object},       figures that sentences quote
      "columns": [["HEADER", FORMATS...], ...],
      "rows": [[CELL, ...], ...]                or, for several: "tables": {"TABLE": {...}}

A cell is a number, a list of several, a text, or null, which is shown as open. A column's format,
such as "{:.1f} ({:.1f})", is the one with as many fields as the cell has values; without it numbers
are printed as the file has them, with separators of thousands. A text may refer to values of any
file, so that two tables show one number: "{market1501[cpu][mAP]:.1f}".

A figure is a number with a decimal point, an exponent, or a unit of time, memory, speed or share.
Each one in a sentence, in a table that a page has itself, or in a heading must be printed by a
table or value of the files that its section shows or quotes; `paper` is tests/paper/paper.toml.
Numbers between backquotes are settings and examples, and are not compared; nor are versions.
"""

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from string import Formatter
from typing import Any

from data_prep.errors import InputError
from data_prep.files import write_text

ROOT = Path(__file__).parents[1]
OPEN = "*open*"
Results = Mapping[str, Mapping[str, Any]]

BEGIN = "<!-- results: "
TABLE = re.compile(rf"({BEGIN}(\S+) -->\n)(?:(?!{BEGIN}).)*?(<!-- end -->)", re.DOTALL)
QUOTES = re.compile(r"<!-- quotes: ([^>]*?) -->")
NUMBER = re.compile(r"(?<![\w.])(?<!\w-)-?\d+(?:,\d{3})*(?:\.\d+)*(?:e[-+]?\d+)?(?!\w)")
UNIT = re.compile(
    r"[\s-]?(?:images/s|[mun]?s|min|minutes?|h|hours?|days?|seconds?|core-\w+|[kKMGT]i?B(?:/s)?|"
    r"bytes|[GT]FLOP|G floating|%|times|points|million|M parameters|page faults|operations)(?!\w)"
)
COMMIT = re.compile(r"\b(?=[0-9]*[a-f])(?=[a-f]*[0-9])[0-9a-f]{7}\b")
VERSIONED = re.compile(r"(?:Python|PyTorch|OpenVINO|ONNX Runtime|Milvus Lite|pymilvus) \(?$")


def read_results(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """Reads all files of docs/results by name, and the paper's numbers as `paper`."""
    files = sorted((root / "docs" / "results").glob("*.json"))
    results = {path.stem: read_result(path) for path in files}
    paper = tomllib.loads((root / "tests/paper/paper.toml").read_text(), parse_float=Decimal)
    return {"paper": {"values": paper}, **results}


def read_result(path: Path) -> dict[str, Any]:
    """Reads a file. Numbers keep their decimals, so that 66.0 is not printed as 66."""
    found = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    if "figures" in found:
        return from_report(found)
    return found if found.keys() & {"values", "rows", "tables"} else {"values": found}


def from_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a benchmark's report, with a caption."""
    figures = report["figures"]
    names = dict.fromkeys(name for row in figures.values() for name in row)
    columns = report.get("columns", [[""], *([name] for name in names)])
    show = (lambda value: value) if "columns" in report else _round
    rows = [
        [name, *(show(row.get(header, "")) for header, *_ in columns[1:])]
        for name, row in figures.items()
    ]
    options = ", ".join(f"{name} {value}" for name, value in report["options"].items())
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    caption = (
        f"`benchmarks.{report['benchmark']}`{f' ({options})' * bool(options)}, "
        f"commit {report['commit']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['gflops']} GFLOP/s; {versions}"
    )
    return {"commit": report["commit"], "columns": columns, "rows": rows, "caption": caption}


def _round(value: Any) -> Any:
    """Three digits of a number with decimals; all digits before its point."""
    if not isinstance(value, Decimal):
        return value
    return round(value) if abs(value) >= 1000 else Decimal(f"{float(value):#.3g}")


class CellFormatter(Formatter):
    """`str.format` with separators of thousands by default, and `p` for percent without a sign."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Prints one value."""
        if format_spec.endswith("p"):
            return format(100 * value, format_spec[:-1] + "f")
        is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        return format(value, format_spec or "," * is_number).replace("E", "e" if is_number else "E")


FORMATTER = CellFormatter()


def print_cell(cell: Any, formats: list[str], results: Results) -> str:
    """A cell of a table as the page shows it."""
    if cell is None:
        return OPEN
    values = cell if isinstance(cell, list) else [cell]
    if isinstance(cell, str):
        named = {name: result.get("values", {}) for name, result in results.items()}
        return FORMATTER.vformat(cell, (), named)
    for text in [*formats, "{}"]:
        if sum(field is not None for _, field, *_ in FORMATTER.parse(text)) == len(values):
            return FORMATTER.format(text, *values)
    raise InputError(f"{cell} needs a format with {len(values)} fields, got {formats}.")


def find_result(name: str, results: Results) -> tuple[Mapping[str, Any], str]:
    """The file of NAME or NAME/PART, and the name of the part, "" for all of it."""
    name, _, part = name.partition("/")
    file = results.get(name, {})
    if not file or (part and part not in {**file.get("tables", {}), **file.get("values", {})}):
        raise InputError(f"docs/results has no {name}{'/' * bool(part)}{part}.")
    return file, part


def print_table(name: str, results: Results) -> str:
    """The Markdown of a table; `name` is that of a file, or FILE/TABLE."""
    file, part = find_result(name, results)
    table = file["tables"][part] if part else file
    headers = [header for header, *_ in table["columns"]]
    rows = [
        [
            print_cell(cell, formats, results)
            for cell, (_, *formats) in zip(row, table["columns"], strict=True)
        ]
        for row in table["rows"]
    ]
    lines = [_line(headers), "|---" * len(headers) + "|", *map(_line, rows)]
    return "\n".join(lines) + (f"\n\n{table['caption']}." if "caption" in table else "")


def _line(cells: list[str]) -> str:
    # An empty cell has one space: "| a | | b |".
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def fill_tables(page: str, results: Results) -> str:
    """The text of a page with the tables of the results."""

    def replace(found: re.Match[str]) -> str:
        return f"{found[1]}\n{print_table(found[2], results)}\n\n{found[3]}"

    return TABLE.sub(replace, page)


def printed(name: str, results: Results) -> set[str]:
    """Figures and commits that the tables and values of a file print, or one of its values."""
    file, part = find_result(name, results)
    tables = [name] * ("rows" in file) + [f"{name}/{table}" for table in file.get("tables", ())]
    values = file.get("values", {})
    texts = [] if part else [print_table(table, results) for table in tables]
    held = _values(values[part] if part else values)
    texts += [print_cell(value, [], results) for value in held]
    found = {number for text in texts for number in NUMBER.findall(text)}
    return found | set(COMMIT.findall(" ".join([*texts, json.dumps(file.get("commit"))])))


def _values(value: Any) -> Iterator[Any]:
    """The numbers and texts in nested values."""
    if isinstance(value, Mapping | list):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _values(one)
    elif value is not None:
        yield value


def split_sections(page: str) -> Iterator[str]:
    """The sections of a page, from one heading to the next, without blocks of code."""
    text = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!-- campaign: begin.*?campaign: end -->", "", text, flags=re.DOTALL)
    yield from re.split(r"^(?=#)", text, flags=re.MULTILINE)


def find_figures(section: str) -> Iterator[str]:
    """Figures and commits of a section's own text: not those of its generated tables."""
    text = re.sub(r"<!--.*?-->", "", TABLE.sub("", section), flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "`", text))
    yield from COMMIT.findall(text)
    has_unit, after = False, len(text)
    # From the end, because "322 to 350 and 418 to 446 images/s" has one unit for all.
    for found in reversed(list(NUMBER.finditer(text))):
        joined = re.fullmatch(r",?\s(?:to|and|or)\s|,\s", text[found.end() : after])
        unit = UNIT.match(text, found.end())
        has_unit, after = bool(unit or (joined and has_unit)), found.start()
        is_version = VERSIONED.search(text[: found.start()]) and not unit
        points = found[0].count(".")
        if has_unit or (points == 1 and not is_version) or (points == 0 and "e" in found[0]):
            yield found[0]


def find_problems(page: str, results: Results) -> list[str]:
    """Sentences on what is wrong with the text of a page; empty if its figures are all held."""
    problems = []
    if page.count(BEGIN) != len(TABLE.findall(page)):
        problems.append(f"a line {BEGIN}NAME --> has no line <!-- end --> of its own.")
    for section in split_sections(page):
        title = section.partition("\n")[0]
        names = [name.partition("/")[0] for _, name, _ in TABLE.findall(section)]
        names += [name for quoted in QUOTES.findall(section) for name in quoted.split()]
        listed = ", ".join(dict.fromkeys(names)) or "none"
        held = set().union(*(printed(name, results) for name in names))
        problems += [
            f'"{title}" has {figure}, which its results ({listed}) do not hold.'
            for figure in find_figures(section)
            if figure not in held
        ]
    if fill_tables(page, results) != page:
        problems.append("a table is out of date; `python docs/results.py` writes it.")
    return problems


def list_pages(root: Path = ROOT) -> list[Path]:
    """README.md and all pages of docs."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Writes the tables, and returns status 1 if a figure is on a page only."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args(arguments).check
    results, problems = read_results(root), []
    for path in list_pages(root):
        page, name = path.read_text(encoding="utf-8"), path.relative_to(root)
        try:
            if not check and (filled := fill_tables(page, results)) != page:
                write_text(path, filled)
                page = filled
            problems += [f"{name}: {text}" for text in find_problems(page, results)]
        except InputError as error:
            problems.append(f"{name}: {error}")
    print("\n".join(problems), file=sys.stderr, end="\n" * bool(problems))
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
