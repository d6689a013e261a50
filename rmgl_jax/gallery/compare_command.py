"""The command `rmgl compare`: the similarity of two images, and whether they show one person."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console

from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class CompareOptions:
    """Compute the similarity of two person crops.

    If the model is calibrated (`rmgl calibrate`), also say whether they show the same person.
    """

    model: tyro.conf.Positional[Path]
    """Run directory or model file."""
    first: tyro.conf.Positional[Path]
    """Image file."""
    second: tyro.conf.Positional[Path]
    """Image file."""
    json: bool = False
    """Print JSON."""
    debug: bool = False
    """Show the traceback of every error."""


def main(arguments: Sequence[str]) -> None:
    """Runs the command line of `rmgl compare`."""
    options = tyro.cli(CompareOptions, prog="rmgl compare", args=arguments)
    console = Console()
    silence_loggers()
    with report_errors(console, options.debug):
        start_jax(DistributedOptions())
        # Orbax and Flax would bring the time of --help above 1.5 s.
        from rmgl_jax.export.model_file import load_model
        from rmgl_jax.gallery.compare import compare, describe

        result = compare(load_model(options.model), options.first, options.second)
        if options.json:
            print(json.dumps(asdict(result), indent=2))
        else:
            print("\n".join(describe(result)))
