"""The command `rmgl gallery`: add images to a gallery, search, list, remove and serve it."""

import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.errors import InputError
from rmgl_jax.export.model_file import TrainedModel, load_model
from rmgl_jax.gallery.crops import Crop, find_crops, parse_time
from rmgl_jax.gallery.entries import Entry, Filters
from rmgl_jax.gallery.gallery import COLLECTION, Gallery, is_id
from rmgl_jax.gallery.same_person import DEFAULT_FPR, same_person_threshold
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class FilterOptions:
    """Conditions on images, which must all hold."""

    camera: tuple[str, ...] = ()
    """Only these cameras."""
    not_camera: tuple[str, ...] = ()
    """None of these cameras."""
    after: str | None = None
    """Only images from this time on: 2026-05-01T12:30 (UTC unless it says otherwise) or seconds
    since 1970."""
    before: str | None = None
    """Only images before this time."""
    label: tuple[str, ...] = ()
    """Only images with all of these labels."""


@dataclass(frozen=True)
class AddOptions:
    """Add images to a gallery, which is made if there is none; adding twice changes nothing."""

    gallery: tyro.conf.Positional[str]
    """Directory of the gallery, or http://HOST:PORT of a Milvus server (also --gallery URL)."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Image files, directories (searched at any depth), globs, and CSV files with boxes."""
    model: Path | None = None
    """Run directory or model file; needed to make a gallery, and with a server."""
    camera: str | None = None
    """Camera of all these images; by default that of their names or CSV file."""
    label: tuple[str, ...] = ()
    """Labels that all these images get, in addition to those of a CSV file."""
    flip: bool = True
    """Average each embedding with that of the mirrored image; later additions are as the first."""
    dim: int | None = None
    """Width of projected embeddings in a new gallery; by default that which `rmgl compress`
    recommends, or the whole embedding of a model without a projection."""
    index: Literal["exact", "hnsw"] | None = None
    """Index of a new gallery: exact (the default), or approximate; its recall is then measured."""
    skip_bad: bool = False
    """Leave out images that cannot be read, and list them."""
    batch_size: int = 64
    """Images embedded at once."""
    name: str = COLLECTION
    """Name of the collection on a server."""
    json: bool = False
    """Print the outcome as JSON."""
    debug: bool = False
    """Show the traceback of every error."""


@dataclass(frozen=True)
class SearchOptions:
    """Find the images of a gallery that are most similar to an image."""

    gallery: tyro.conf.Positional[str]
    """Directory of the gallery, or http://HOST:PORT of a Milvus server (also --gallery URL)."""
    image: tyro.conf.Positional[str]
    """Image file, or id of an image of the gallery."""
    top: int = 10
    """Number of results."""
    filters: Annotated[FilterOptions, tyro.conf.arg(name="")] = field(default_factory=FilterOptions)
    """Conditions on the results."""
    rerank: bool = False
    """Order the nearest 1,000 images by k-reciprocal re-ranking."""
    expand: bool = False
    """Order the nearest 1,000 images by query expansion."""
    fpr: float | None = None
    """False positive rate at which results are called the same person; by default 1e-3, if the
    model is calibrated (`rmgl calibrate`)."""
    model: Path | None = None
    """Run directory or model file; needed with a server."""
    name: str = COLLECTION
    """Name of the collection on a server."""
    json: bool = False
    """Print a list of objects as JSON, best first."""
    debug: bool = False
    """Show the traceback of every error."""


@dataclass(frozen=True)
class ListOptions:
    """List the images of a gallery by path."""

    gallery: tyro.conf.Positional[str]
    """Directory of the gallery, or http://HOST:PORT of a Milvus server (also --gallery URL)."""
    filters: Annotated[FilterOptions, tyro.conf.arg(name="")] = field(default_factory=FilterOptions)
    """Conditions on the images."""
    name: str = COLLECTION
    """Name of the collection on a server."""
    json: bool = False
    """Print a list of objects as JSON."""
    debug: bool = False
    """Show the traceback of every error."""


@dataclass(frozen=True)
class RemoveOptions:
    """Remove images from a gallery: all that are named, or none if one is not there."""

    gallery: tyro.conf.Positional[str]
    """Directory of the gallery, or http://HOST:PORT of a Milvus server (also --gallery URL)."""
    images: tyro.conf.Positional[tuple[str, ...]]
    """Ids, and paths of image files as `rmgl gallery list` shows them."""
    name: str = COLLECTION
    """Name of the collection on a server."""
    json: bool = False
    """Print the outcome as JSON."""
    debug: bool = False
    """Show the traceback of every error."""


def add(options: AddOptions) -> None:
    """Runs `rmgl gallery add`."""
    # All are found before the first is added, so that mistakes show early and the end is known.
    crops = [_with_metadata(crop, options) for crop in find_crops(options.images)]
    if not crops:
        raise InputError("Name the images to add: files, directories, globs or CSV files.")
    with Gallery.open(
        options.gallery,
        _model(options.model),
        create=True,
        flip=None if options.flip else False,
        dim=options.dim,
        index=options.index,
        name=options.name,
        batch_size=options.batch_size,
    ) as gallery:
        result = gallery.add(crops, skip_bad=options.skip_bad, progress=True)
        approximate = gallery.settings.index != "exact" and result.added > 0
        outcome = {
            "added": result.added,
            "present": result.present,
            "skipped": [skipped._asdict() for skipped in result.skipped],
            "wide": list(result.wide),
            "images": len(gallery),
            "recall_at_10": gallery.recall(10) if approximate else None,
        }
    if options.json:
        return _print_json(outcome)
    text = (
        f"{result.added:,} images added, {result.present:,} were there, {outcome['images']:,} now"
    )
    _print(f"{text}.")
    if approximate:
        _print(f"Recall of the index: {outcome['recall_at_10']:.4f} of the exact 10 best.")
    if result.wide:
        _print(
            f"{len(result.wide):,} are wider than high, as person crops rarely are; the first is "
            f"{result.wide[0]}."
        )
    for path, reason in result.skipped:
        _print(f"Skipped {path}: {reason}")


def search(options: SearchOptions) -> None:
    """Runs `rmgl gallery search`."""
    filters = _filters(options.filters)
    with Gallery.open(options.gallery, _model(options.model), name=options.name) as gallery:
        matches = gallery.search(
            options.image, options.top, filters, rerank=options.rerank, expand=options.expand
        )
        threshold = same_person_threshold(gallery, options.fpr)
    same = [None if threshold is None else match.score > threshold for match in matches]
    if options.json:
        return _print_json(
            [
                {"score": match.score, "same_person": decision, **asdict(match.entry)}
                for match, decision in zip(matches, same, strict=True)
            ]
        )
    words = {True: "yes", False: "no", None: ""}
    rows = [
        (f"{match.score:.4f}", words[decision], *_cells(match.entry))
        for match, decision in zip(matches, same, strict=True)
    ]
    _print_table(("score", "same person", *_COLUMNS), rows)
    if threshold is not None:
        fpr = options.fpr or DEFAULT_FPR
        _print(f"Same person: score above {threshold:.4f}, measured for an FPR of {fpr:g}.")


def list_images(options: ListOptions) -> None:
    """Runs `rmgl gallery list`."""
    filters = _filters(options.filters)
    with Gallery.open(options.gallery, name=options.name) as gallery:
        entries = sorted(gallery.scan(filters), key=lambda entry: (entry.path, entry.id))
    if options.json:
        return _print_json([asdict(entry) for entry in entries])
    _print_table(_COLUMNS, [_cells(entry) for entry in entries])
    _print(f"{len(entries):,} images.")


def remove(options: RemoveOptions) -> None:
    """Runs `rmgl gallery remove`."""
    with Gallery.open(options.gallery, name=options.name) as gallery:
        ids: list[str] = []
        for image in options.images:
            found = [image] if is_id(image) else gallery.ids_of(image)
            if not found:
                raise InputError(f"The gallery {options.gallery} has no image {image}.")
            ids += found
        removed, left = gallery.remove(ids), len(gallery)
    if options.json:
        return _print_json({"removed": removed, "images": left})
    _print(f"{removed:,} images removed, {left:,} left.")


class Command(NamedTuple):
    """A subcommand."""

    options: Any
    run: Callable[[Any], None]
    help: str


COMMANDS = {
    "add": Command(AddOptions, add, "add images, and make the gallery if there is none"),
    "search": Command(SearchOptions, search, "find the images most similar to an image"),
    "list": Command(ListOptions, list_images, "list images, all or those that filters leave"),
    "remove": Command(RemoveOptions, remove, "remove images by id or path"),
}


def main(arguments: Sequence[str]) -> None:
    """Runs the subcommand of `rmgl gallery` that the command line names."""
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        sys.exit(0)
    elif name == "serve":
        importlib.import_module("rmgl_jax.gallery.serve_command").main(_gallery_first(rest))
    elif name in COMMANDS:
        command = COMMANDS[name]
        prog = f"rmgl gallery {name}"
        options = tyro.cli(command.options, prog=prog, args=_gallery_first(rest))
        silence_loggers()
        # Only JSON is on standard output, so that programs can read it.
        with report_errors(Console(stderr=options.json), options.debug):
            start_jax(DistributedOptions())
            command.run(options)
    else:
        print(f"rmgl gallery has no command {name!r}.\n\n{usage()}", file=sys.stderr)
        sys.exit(2)


def usage() -> str:
    """All subcommands, a line each."""
    serve = "search in a browser, on this machine"
    texts = {name: command.help for name, command in COMMANDS.items()} | {"serve": serve}
    return "\n".join(
        [
            "usage: rmgl gallery COMMAND GALLERY [OPTIONS]",
            "",
            "Galleries of person crops in a directory, or on a Milvus server by its URL.",
            "",
            *(f"  {name:<10}{text}" for name, text in texts.items()),
            "",
            "rmgl gallery COMMAND --help shows the options of a command.",
        ]
    )


def _gallery_first(arguments: Sequence[str]) -> list[str]:
    """Moves `--gallery LOCATION` to the place of the first argument."""
    rest = list(arguments)
    for index, argument in enumerate(rest):
        if argument == "--gallery" and index + 1 < len(rest):
            location = rest[index + 1]
            return [location, *rest[:index], *rest[index + 2 :]]
        if argument.startswith("--gallery="):
            return [argument.removeprefix("--gallery="), *rest[:index], *rest[index + 1 :]]
    return rest


def _with_metadata(crop: Crop, options: AddOptions) -> Crop:
    camera = crop.camera if options.camera is None else options.camera
    labels = tuple(dict.fromkeys((*crop.labels, *options.label)))
    return replace(crop, camera=camera, labels=labels)


def _model(path: Path | None) -> TrainedModel | None:
    return None if path is None else load_model(path)


def _filters(options: FilterOptions) -> Filters:
    return Filters(
        cameras=options.camera,
        not_cameras=options.not_camera,
        after=_time("--after", options.after),
        before=_time("--before", options.before),
        labels=options.label,
    )


def _time(name: str, text: str | None) -> float | None:
    try:
        return None if text is None else parse_time(text)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} must be a time as 2026-05-01T12:30, got {text!r}.") from error


_COLUMNS = ("path", "box", "camera", "time", "labels", "id")


def _cells(entry: Entry) -> tuple[str, ...]:
    time = ""
    if entry.time is not None:
        try:
            time = datetime.fromtimestamp(entry.time, UTC).isoformat(" ", "seconds")[:19]
        except (ValueError, OverflowError):  # years after 9999
            time = f"{entry.time:g}"
    box = "" if entry.box is None else " ".join(map(str, entry.box))
    return entry.path, box, entry.camera, time, ", ".join(entry.labels), entry.id


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table()
    # Metadata that no image has need no column.
    shown = [i for i, name in enumerate(columns) if name == "path" or any(row[i] for row in rows)]
    for i in shown:
        table.add_column(columns[i], overflow="fold")
    for row in rows:
        # Text is shown as it is: names of files may look like markup.
        table.add_row(*(Text(_printable(row[i])) for i in shown))
    Console().print(table)


def _print(text: str) -> None:
    Console().print(_printable(text), markup=False, highlight=False, soft_wrap=True)


def _printable(text: str) -> str:
    """Replaces control characters, with which a file's name could steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _print_json(value: Any) -> None:
    try:
        print(json.dumps(value, indent=1, allow_nan=False), flush=True)
    except BrokenPipeError:
        # The reader, such as `head`, has enough; Python would complain again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
