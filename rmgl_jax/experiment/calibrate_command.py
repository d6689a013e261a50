"""Measure score thresholds for "same person?" and store them with the model.

    rmgl calibrate MODEL --rates 1e-2 1e-3 1e-4 --output model.safetensors

MODEL is a run directory or a model file. The thresholds are measured on query and gallery of the
dataset, and do not carry over to other cameras.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from data_prep.errors import InputError
from data_prep.files import check_output
from rmgl_jax.experiment.options import DataOptions
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class CalibrateOptions:
    """Options of `rmgl calibrate`."""

    model: tyro.conf.Positional[Path]
    """Run directory or model file."""
    output: Path
    """Model file (.safetensors) to write."""
    rates: tuple[float, ...] = (1e-2, 1e-3, 1e-4)
    """False positive rates: shares of pairs of different persons that are mistaken."""
    dim: int | None = None
    """Width of the projected embedding. The default is that of a gallery: the one which `rmgl
    compress` recommends, or the whole embedding of a model without a projection."""
    flip: bool = True
    """Average each embedding with that of the mirrored image."""
    dataset: str | None = None
    """Name of the dataset. The default is that of the training."""
    data: Annotated[DataOptions, tyro.conf.arg(name="")] = field(default_factory=DataOptions)
    """Source and directory of the data."""
    batch_size: int = 64
    """Images embedded at once."""
    debug: bool = False
    """Show the traceback of expected errors."""


def main(arguments: Sequence[str]) -> None:
    """Runs the command line of `rmgl calibrate`."""
    options = tyro.cli(CalibrateOptions, prog="rmgl calibrate", args=arguments, description=__doc__)
    console = Console()
    with report_errors(console, options.debug):
        silence_loggers()
        start_jax(DistributedOptions())
        # Importing TFDS takes seconds, which --help need not wait for.
        from data_prep import prepare_dataset
        from rmgl_jax.experiment.calibrate import calibrate_model, print_calibration
        from rmgl_jax.experiment.splits import load_query_and_gallery
        from rmgl_jax.export.model_file import check_model_suffix, load_model, save_model

        check_model_suffix(options.output)
        model = load_model(options.model)
        # After the model, whose name may be one of the hub: its directory must not be made before.
        check_output(options.output)
        builder = prepare_dataset(
            options.dataset or model.trained_on,
            options.data.source,
            options.data.data_dir,
            allow_partial=options.data.allow_partial,
        )
        test = load_query_and_gallery(builder, model.config.model.image_size)
        if test is None:
            raise InputError(f"{builder.data_path} has no images of query and gallery.")
        calibrated = calibrate_model(
            model,
            test,
            options.rates,
            flip=options.flip,
            dim=model.default_dim if options.dim is None else options.dim,
            batch_size=options.batch_size,
            console=console if console.is_terminal else None,
        )
        assert calibrated.calibration is not None
        print_calibration(calibrated.calibration, console)
        save_model(calibrated, options.output)
        console.print(
            f"The model with its thresholds is in {options.output}.", highlight=False, markup=False
        )
