"""`python -m tests.torture [--minutes 30]` runs the fault campaign, or continues it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from data_prep.errors import InputError
from rmgl_jax.runtime import report_errors
from tests.torture import campaign, concurrency, corruption, full_disk, fuzz, hostile, kills, table
from tests.torture.campaign import Kind
from tests.torture.scene import MISSING

KINDS = {
    "kills": Kind(0.55, kills.case),
    "corruption": Kind(0.27, corruption.case),
    "hostile input": Kind(0.08, hostile.case),
    "full disk": Kind(0.04, full_disk.case),
    "fuzzing": Kind(0.03, fuzz.case),
    "two at once": Kind(0.03, concurrency.case),
}


@dataclass(frozen=True)
class Options:
    """Break the commands of the project in many ways, and report what they make of it.

    The same command continues an interrupted campaign.
    """

    minutes: float = 30.0
    """Length of the campaign, with the time of the records that it continues."""
    seed: int = 0
    """Chooses the faults."""
    scratch: Path = Path("runs/torture")
    """Directory for everything."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Kinds of faults."""
    cases: int | None = None
    """Cases of each kind at most."""
    only: str | None = None
    """Repeat one case, as "kills/17", and print its record."""
    output: Path | None = None
    """Markdown page to write the table into, between its two markers."""
    debug: bool = False
    """Show the traceback of expected errors."""


def main() -> None:
    """Runs the command line; status 1 if a defect was found."""
    options = tyro.cli(Options, prog="python -m tests.torture")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    with report_errors(console, options.debug):
        if unknown := sorted(set(options.kinds) - set(KINDS)):
            raise InputError(f"There is no kind {unknown[0]!r}; there are {', '.join(KINDS)}.")
        root = options.scratch.expanduser().absolute()
        results = root / "results.jsonl"
        for command in MISSING:
            console.print(f"This version has no command {command}: it is left out.")
        if options.only is not None:
            name, _, number = options.only.rpartition("/")
            campaign.start_worker(min(os.sched_getaffinity(0)), root)
            record = campaign.run_case(KINDS[name], name, int(number), options.seed, root)
            console.print_json(data=record)
            return
        console.print(f"Seed {options.seed}, scratch directory {root}")
        kinds = {name: KINDS[name] for name in options.kinds}
        campaign.run_campaign(
            kinds, root, results, options.minutes, options.seed, options.cases, console.print
        )
        header, records = campaign.read_results(results)
        console.print(table.to_rich(header, records))
        if options.output is not None:
            table.write_page(options.output, table.to_markdown(header, records))
        if any(record["outcome"] not in campaign.GOOD for record in records):
            sys.exit(1)


if __name__ == "__main__":
    main()
