"""The command `rmgl embed`: embeddings of image files as one `.npz` file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console

from data_prep.errors import InputError, MissingFileError
from data_prep.files import replacing
from data_prep.names import is_image_name
from rmgl_jax.export.model_file import load_model
from rmgl_jax.gallery.embedder import Embedder
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class EmbedOptions:
    """Write the embeddings of images: arrays `embedding` float32 [M, E] and `path` [M]."""

    model: tyro.conf.Positional[Path]
    """Run directory or model file."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, and directories that are searched at any depth."""
    output: Path
    """File (.npz) to write."""
    flip: bool = True
    """Average each embedding with that of the mirrored image."""
    batch_size: int = 64
    """Images embedded at once."""
    debug: bool = False
    """Show the traceback of every error."""


def main(arguments: Sequence[str]) -> None:
    """Runs the command line of `rmgl embed`."""
    options = tyro.cli(EmbedOptions, prog="rmgl embed", args=arguments)
    console = Console()
    silence_loggers()
    with report_errors(console, options.debug):
        start_jax(DistributedOptions())
        paths = list(image_paths(options.images))
        embed_files(options, paths)
        console.print(
            f"{len(paths):,} embeddings are in {options.output}", highlight=False, markup=False
        )


def embed_files(options: EmbedOptions, paths: Sequence[Path]) -> None:
    """Embeds image files and writes the `.npz` file, completely or not at all.

    Raises:
        InputError: `output` does not end in .npz, or an image does not decode.
        MissingFileError: the model or an image is not there.
    """
    if options.output.suffix != ".npz":
        raise InputError(f"--output must end in .npz, got {options.output}.")
    output = options.output.expanduser()
    embedder = Embedder(load_model(options.model), options.batch_size, options.flip)
    embeddings = embedder(paths, progress=True)
    with replacing(output) as temporary, open(temporary, "wb") as file:
        np.savez(file, embedding=embeddings, path=np.array([str(path) for path in paths]))


def image_paths(paths: Sequence[Path]) -> Iterator[Path]:
    """Image files: those named, and all in the directories named, sorted by path.

    Raises:
        MissingFileError: a path does not exist, or a directory has no image files.
    """
    for path in map(Path.expanduser, paths):
        if not path.is_dir():
            if not path.exists():
                raise MissingFileError(f"There is no image {path}.")
            yield path
            continue
        found = sorted(
            file for file in path.rglob("*") if is_image_name(file.name) and file.is_file()
        )
        if not found:
            raise MissingFileError(f"{path} has no image files at any depth.")
        yield from found
