"""The command `rmgl embed`: embeddings of image files as one `.npz` or Parquet file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from rmgl_jax.config import Arithmetic, Engine
from rmgl_jax.evaluation.projection import Precision
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class EmbedOptions:
    """Write the embeddings of images: arrays `embedding` [M, E], `path` [M], and what is known."""

    model: tyro.conf.Positional[Path]
    """Run directory or model file."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files, directories that are searched at any depth, globs, and CSV files with the column
    `path` and, if known, left, top, right, bottom, pid, camera, time, labels."""
    output: Path
    """File to write (.npz or .parquet)."""
    flip: bool = True
    """Average each embedding with that of the mirrored image."""
    dim: int | None = None
    """Width of the embeddings, by the projection that `rmgl compress` fits. The default is all."""
    engine: Engine = "jax"
    """Engine that runs the network. The others than jax run on the CPU and are packages of their
    own (pip install 'rmgl_jax[openvino]')."""
    engine_precision: Arithmetic | None = None
    """Type of the arithmetic. The default is that of the model with jax, and float32 with the other
    engines."""
    precision: Precision = "float32"
    """Type of the stored values."""
    batch_size: int = 64
    """Images embedded at once."""
    skip_bad: bool = False
    """Leave out images that cannot be read, and list them at the end."""
    debug: bool = False
    """Show the traceback of every error."""


def main(arguments: Sequence[str]) -> None:
    """Runs the command line of `rmgl embed`."""
    options = tyro.cli(EmbedOptions, prog="rmgl embed", args=arguments)
    console = Console()
    silence_loggers()
    with report_errors(console, options.debug):
        start_jax(DistributedOptions())
        # Orbax and Flax would bring the time of --help above 1.5 s.
        from rmgl_jax.export.model_file import load_model
        from rmgl_jax.gallery.embed_files import embed_files

        embed_files(
            load_model(options.model),
            options.images,
            options.output,
            flip=options.flip,
            dim=options.dim,
            engine=options.engine,
            engine_precision=options.engine_precision,
            precision=options.precision,
            batch_size=options.batch_size,
            skip_bad=options.skip_bad,
            console=console,
        )
