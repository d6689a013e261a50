"""Fit a projection to shorter embeddings, measure what it costs, and store it with the model.

    rmgl compress MODEL --dims 512 256 128 --output model.safetensors

MODEL is a run directory or a model file. The projection is fitted on the training images of the
dataset; each width is measured on its query and gallery, if it has them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from data_prep.files import check_output
from rmgl_jax.experiment.options import DataOptions
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class CompressOptions:
    """Options of `rmgl compress`."""

    model: tyro.conf.Positional[Path]
    """Run directory or model file."""
    output: Path
    """Model file (.safetensors) to write."""
    dims: tuple[int, ...] = (512, 256, 128)
    """Widths of the embeddings that are measured. The model file gives every width up to the
    greatest."""
    whitening: float = 0.5
    """Weight of whitening within persons before PCA: 0 is plain PCA, 1 whitens completely."""
    dataset: str | None = None
    """Name of the dataset. The default is that of the training."""
    data: Annotated[DataOptions, tyro.conf.arg(name="")] = field(default_factory=DataOptions)
    """Source and directory of the data."""
    flip: bool = True
    """Average each embedding with that of the mirrored image."""
    batch_size: int = 64
    """Images embedded at once."""
    debug: bool = False
    """Show the traceback of expected errors."""


def main(arguments: Sequence[str]) -> None:
    """Runs the command line of `rmgl compress`."""
    options = tyro.cli(CompressOptions, prog="rmgl compress", args=arguments, description=__doc__)
    console = Console()
    with report_errors(console, options.debug):
        silence_loggers()
        start_jax(DistributedOptions())
        # Importing TFDS takes seconds, which --help need not wait for.
        from rmgl_jax.experiment.compress import compress, print_widths
        from rmgl_jax.experiment.splits import load_train_and_test
        from rmgl_jax.export.model_file import check_model_suffix, load_model, save_model

        check_model_suffix(options.output)
        model = load_model(options.model)
        # After the model, whose name may be one of the hub: its directory must not be made before.
        check_output(options.output)
        train, test = load_train_and_test(
            options.dataset or model.trained_on,
            model.config.model.image_size,
            source=options.data.source,
            data_dir=options.data.data_dir,
            allow_partial=options.data.allow_partial,
        )
        compressed, rows = compress(
            model,
            train,
            test,
            options.dims,
            whitening=options.whitening,
            flip=options.flip,
            batch_size=options.batch_size,
            console=console if console.is_terminal else None,
        )
        if rows:
            print_widths(rows, console)
        save_model(compressed, options.output)
        lines = [f"The model with its projection is in {options.output}."]
        if rows:
            dim = compressed.projection and compressed.projection.default_dim
            lines.append(
                f"{dim} is the smallest width that loses at most 0.5 mAP: `--dim {dim}`."
                if dim
                else "No width loses at most 0.5 mAP."
            )
        if model.calibration is not None and compressed.calibration is None:
            lines.append("The thresholds of the former projection are dropped.")
        console.print("\n".join(lines), highlight=False, markup=False)
