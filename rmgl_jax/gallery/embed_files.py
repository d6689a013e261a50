"""The command `rmgl embed`: embeddings of image files as one `.npz` or Parquet file."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import tyro
from rich.console import Console

from data_prep.errors import InputError
from rmgl_jax.evaluation.embedding import progress_bar
from rmgl_jax.evaluation.projection import Precision
from rmgl_jax.export.model_file import load_model
from rmgl_jax.gallery.crops import Crop, find_crops
from rmgl_jax.gallery.embedder import BadImage, Embedder
from rmgl_jax.gallery.embedding_file import write_embeddings
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
        embed_files(options, console)


def embed_files(options: EmbedOptions, console: Console) -> list[BadImage]:
    """Embeds image files, and writes the file of embeddings, completely or not at all.

    Images are found twice, first to count them, so that memory does not grow with their number.

    Returns:
        The images that were left out.

    Raises:
        InputError: `output` has another suffix, an image does not decode (with `skip_bad`: none
            does), or the model does not give embeddings of width `dim`.
        MissingFileError: the model or an image is not there.
    """
    total = sum(1 for _ in find_crops(options.images))
    embedder = Embedder(load_model(options.model), options.batch_size, options.flip, options.dim)
    done, skipped = 0, list[BadImage]()
    started = time.perf_counter()
    with (
        write_embeddings(options.output, embedder.width, options.precision) as append,
        progress_bar(Console(stderr=True)) as progress,
    ):
        task = progress.add_task("embedding", total=total)
        for batch in embedder.stream(find_crops(options.images), options.skip_bad):
            append(cast(list[Crop], batch.images), batch.embeddings)
            done += len(batch.images)
            skipped += batch.skipped
            progress.update(task, completed=done + len(skipped))
        if not done:
            raise InputError(f"None of {total:,} images can be read; {skipped[0].reason}")
    seconds = time.perf_counter() - started
    if skipped:
        _print(console, f"{len(skipped):,} images cannot be read and are left out:")
    for image in skipped:
        _print(console, f"  {image.reason}")
    _print(
        console,
        f"{done:,} embeddings of width {embedder.width:,} are in {options.output} "
        f"({done / seconds:,.0f} images/s)",
    )
    return skipped


def _print(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
