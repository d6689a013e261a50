"""The command `rmgl export`: writes a trained model as ONNX, StableHLO, model file or folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from data_prep.errors import InputError
from data_prep.files import expand
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained model as one file that runs elsewhere, or as a file to pass on.

    onnx: a graph for ONNX Runtime, OpenVINO and others. stablehlo: a program for JAX on CPUs, GPUs
    and TPUs, to be read by jax.export.deserialize. model: a model file (.safetensors), or a folder
    with the model file and a model card.
    """

    run: tyro.conf.Positional[Path]
    """Run directory, model file or folder, or ORGANIZATION/NAME on the Hugging Face hub."""
    format: Literal["onnx", "stablehlo", "model"]
    """Format to write."""
    output: Path
    """File to write; with --format model a path without a suffix is a folder."""
    flip: bool = True
    """Average each embedding with that of the mirrored image, in the exported program."""
    input: Literal["uint8", "float", "normalized"] = "uint8"
    """Images that an ONNX graph takes: uint8 or float [B, H, W, 3] with RGB values 0 to 255, or
    normalized [B, 3, H, W], normalized by ImageNet's mean and standard deviation."""
    step: int | None = None
    """Training step of the checkpoint in a run directory. The default is the latest."""
    best: bool = False
    """Take the checkpoint with the greatest mAP among those that the run evaluated."""
    debug: bool = False
    """Show the traceback of every error."""


def main(arguments: Sequence[str]) -> None:
    """Runs the command line of `rmgl export`."""
    options = tyro.cli(ExportOptions, prog="rmgl export", args=arguments)
    console = Console()
    silence_loggers()
    with report_errors(console, options.debug):
        start_jax(DistributedOptions())
        for line in export(options):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def export(options: ExportOptions) -> list[str]:
    """Writes and checks the file.

    Returns:
        Lines that say what was written and how closely it agrees with JAX.

    Raises:
        InputError: the options do not fit each other or the model.
        ExpectedError: see `load_model`, `export_onnx`, `export_stablehlo` and `save_model_folder`.
    """
    # Imported here because they take more than a second, which --help should not.
    from rmgl_jax.export.files import export_onnx, export_stablehlo
    from rmgl_jax.export.hub import MODEL_NAME, is_run
    from rmgl_jax.export.model_card import read_result, save_model_folder
    from rmgl_jax.export.model_file import load_model, save_model

    if options.input != "uint8" and options.format != "onnx":
        raise InputError(f"--input {options.input} applies to --format onnx only.")
    if not options.flip and options.format == "model":
        raise InputError("--no-flip applies to --format onnx and stablehlo only.")
    output = expand(options.output)
    if options.format != "model" and output.suffix == ".safetensors":
        raise InputError(f"{output} is the name of a model file, not of {options.format}.")
    inputs = [expand(options.run)]
    if not is_run(inputs[0]):  # A run directory is read from its checkpoints.
        inputs.append(inputs[0] / MODEL_NAME)
    if any(path.exists() and output.exists() and path.samefile(output) for path in inputs):
        raise InputError(f"{output} would replace the model that it is made from.")
    model = load_model(options.run, options.step, options.best)
    if options.format == "model":
        if output.suffix:
            save_model(model, output)
        else:
            save_model_folder(model, output, read_result(options.run))
        return [f"{output}: step {model.step:,}, digest {model.digest}"]
    if options.format == "onnx":
        agreement = export_onnx(model, output, flip=options.flip, image_input=options.input)
    else:
        agreement = export_stablehlo(model, output, flip=options.flip)
    return [f"{output}: {output.stat().st_size / 1e6:,.1f} MB", f"{agreement}."]
