"""Embeddings of image files as one `.npz` or Parquet file."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rich.console import Console

from data_prep.errors import InputError
from data_prep.progress import printable
from rmgl_jax.config import Arithmetic, Engine
from rmgl_jax.evaluation.embedding import progress_bar
from rmgl_jax.evaluation.projection import Precision
from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.gallery.crop_sources import find_crops
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.embedder import BadImage, Embedder
from rmgl_jax.gallery.embedding_file import check_storable, write_embeddings


def embed_files(
    model: TrainedModel,
    sources: Sequence[str],
    output: Path,
    *,
    flip: bool = True,
    dim: int | None = None,
    engine: Engine = "jax",
    engine_precision: Arithmetic | None = None,
    precision: Precision = "float32",
    batch_size: int = 64,
    skip_bad: bool = False,
    console: Console,
) -> list[BadImage]:
    """Embeds image files, and writes the file of embeddings, completely or not at all.

    Images are found twice, first to count them, so that memory does not grow with their number.

    Args:
        model: the model.
        sources: files, directories, globs and CSV files; see `find_crops`.
        output: `.npz` or `.parquet` file; see `write_embeddings`.
        flip: Average each embedding with that of the mirrored image.
        dim: width of projected embeddings; None is the whole embedding.
        engine: see `Embedder.engine`.
        engine_precision: type of the arithmetic; see `Embedder.precision`.
        precision: type of the stored values.
        batch_size: images embedded at once.
        skip_bad: Leave out images that cannot be read, and list them at the end.
        console: for the messages at the end.

    Returns:
        The images that were left out.

    Raises:
        InputError: `output` has another suffix or cannot hold the name of a file, there are no
            images, one does not decode (with `skip_bad`: none does), the model does not give
            embeddings of width `dim`, or the engine does not compute in `engine_precision`.
        MissingFileError: a source is not there, or without `skip_bad` an image of a CSV file.
        MissingPackageError: the engine is not installed, or pyarrow for a Parquet file.
    """
    total = 0
    for crop in find_crops(sources, missing_ok=skip_bad):
        check_storable(crop, output)
        total += 1
    if not total:
        raise InputError("Name the images to embed: files, directories, globs or CSV files.")
    embedder = Embedder(model, batch_size, flip, dim, engine, engine_precision)
    done, skipped = 0, list[BadImage]()
    started = time.perf_counter()
    with (
        write_embeddings(output, embedder.width, precision) as append,
        progress_bar(Console(stderr=True)) as progress,
    ):
        task = progress.add_task("embedding", total=total)
        found = find_crops(sources, missing_ok=skip_bad)
        for batch in embedder.stream(found, skip_bad):
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
        f"{done:,} embeddings of width {embedder.width:,} are in {output} "
        f"({done / seconds:,.0f} images/s)",
    )
    return skipped


def _print(console: Console, line: str) -> None:
    console.print(printable(line), highlight=False, markup=False, soft_wrap=True)
