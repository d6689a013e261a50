"""The command `rmgl report`: writes the page of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class ReportOptions:
    """Write one self-contained HTML page of a run.

    It shows the result, training curves, ranked lists and what the model attends to. Photographs of
    people are included with --figures only; rendered datasets are always shown.
    """

    workdir: tyro.conf.Positional[Path]
    """Run directory, also as --workdir PATH; the run may still be training."""
    data_dir: Path | None = None
    """Directory of the prepared datasets; TFDS's own by default."""
    output: Path | None = None
    """HTML file to write; report.html in the run directory by default."""
    figures: bool = False
    """Include photographs of people. Do not share such a page if the dataset's terms forbid it."""
    debug: bool = False
    """Show the traceback of every error."""


def main(arguments: Sequence[str], prog: str = "rmgl report") -> None:
    """Runs the command line of `rmgl report`."""
    options = parse(arguments, prog)
    console = Console()
    silence_loggers()
    with report_errors(console, options.debug):
        start_jax(DistributedOptions())
        report(options, console)


def parse(arguments: Sequence[str], prog: str = "rmgl report") -> ReportOptions:
    """Parses the command line; exits with status 2 if it is wrong."""
    # Positional since `rmgl report` exists; the flag is that of `python -m rmgl_jax.report`.
    positional = [word.removeprefix("--workdir=") for word in arguments if word != "--workdir"]
    return tyro.cli(ReportOptions, prog=prog, args=positional)


def report(options: ReportOptions, console: Console) -> Path:
    """Writes the page and prints its path.

    Raises:
        ExpectedError: see `write_report`.
    """
    # Imported here because it takes more than a second, which --help should not.
    from rmgl_jax.report.page import write_report

    path = write_report(
        options.workdir,
        data_dir=options.data_dir,
        output=options.output,
        figures=options.figures,
        console=console,
    )
    console.print(f"The report is in {path}", highlight=False, markup=False, soft_wrap=True)
    return path
