"""The command line of the report."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from rmgl_jax.runtime import report_errors, silence_loggers


@dataclass(frozen=True)
class ReportOptions:
    """Writes one self-contained page of a run: result, curves, ranked lists, what the model sees.

    Photographs of people are shown only with --figures; rendered data sets always.
    """

    workdir: Path
    """Work directory of the run, finished or not."""
    data_dir: Path | None = None
    """Where prepared data sets are kept (TFDS's own directory by default)."""
    output: Path | None = None
    """The file; report.html in the work directory by default."""
    figures: bool = False
    """Shows pictures of real data too; such a page must not be passed on where the data set's
    terms forbid it."""


def main(arguments: list[str]) -> None:
    """Writes the report and says where it is."""
    options = tyro.cli(ReportOptions, prog="python -m rmgl_jax.report", args=arguments)
    console = Console()
    silence_loggers()
    with report_errors(console):
        # Only now: importing this asks jax for its devices, which takes a moment.
        from rmgl_jax.report.page import write_report

        path = write_report(
            options.workdir.expanduser(),
            data_dir=options.data_dir,
            output=options.output,
            figures=options.figures,
            console=console if console.is_terminal else None,
        )
        console.print(f"The report is in {path}", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])
