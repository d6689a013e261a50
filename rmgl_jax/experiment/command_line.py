"""Main functions of the run cards.

Each imports its job after the command line is parsed: Orbax, TFDS and Matplotlib would bring the
time of `--help` above 1.5 s.
"""

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.evaluation.result import PaperNumbers
from rmgl_jax.experiment import options as parsers
from rmgl_jax.experiment.results import PairNumbers, Sweep
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


def run_main(
    presets: Mapping[str, ExperimentConfig],
    paper: PaperNumbers,
    description: str,
    arguments: Sequence[str] | None = None,
    prog: str | None = None,
) -> None:
    """Runs the command line of one run.

    Args:
        presets: configurations by name; the first is the default.
        paper: published numbers to print next to the result.
        description: text of `--help`, which lists the presets.
        arguments: the command line without the program; None is that of this process.
        prog: name of the command; None is that of the run card that is running.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console()
    with report_errors(console, debug="--debug" in arguments):
        options = parsers.parse_run(presets, description, arguments, prog)
        silence_loggers()
        start_jax(options.distributed)
        from rmgl_jax.experiment.run import train

        train(
            options.experiment,
            options.workdir,
            source=options.data.source,
            data_dir=options.data.data_dir,
            allow_partial=options.data.allow_partial,
            weights=options.weights,
            from_scratch=options.from_scratch,
            baselines=options.baselines,
            figures=options.figures,
            profile=options.profile,
            paper=paper,
            console=console,
        )


def sweep_main(sweep: Sweep, description: str, arguments: Sequence[str] | None = None) -> None:
    """Runs the command line of a table or figure; see `run_main`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console()
    with report_errors(console, debug="--debug" in arguments):
        options = parsers.parse_sweep(sweep, description, arguments)
        silence_loggers()
        start_jax(DistributedOptions())
        from rmgl_jax.experiment.sweep import run_sweep

        run_sweep(sweep, options, console)


def evaluate_main(
    description: str, arguments: Sequence[str] | None = None, prog: str | None = None
) -> None:
    """Runs the command line of an evaluation on one dataset; see `run_main`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console()
    with report_errors(console, debug="--debug" in arguments):
        options = parsers.parse_evaluate(description, arguments, prog)
        silence_loggers()
        start_jax(DistributedOptions())
        from rmgl_jax.experiment.evaluate import evaluate_run

        evaluate_run(options, console)


def cross_dataset_main(
    published: Mapping[str, PairNumbers],
    description: str,
    arguments: Sequence[str] | None = None,
    prog: str | None = None,
) -> None:
    """Runs the command line of an evaluation on all datasets; see `run_main`.

    Args:
        published: numbers to print next to the results, by method.
        description: text of `--help`.
        arguments: the command line without the program; None is that of this process.
        prog: name of the command; None is that of the run card that is running.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console()
    with report_errors(console, debug="--debug" in arguments):
        options = parsers.parse_cross_dataset(description, arguments, prog)
        silence_loggers()
        start_jax(DistributedOptions())
        from rmgl_jax.experiment.cross_dataset import evaluate_all

        evaluate_all(options, published, console)
