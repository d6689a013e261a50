"""Actions of `rmgl gallery`'s subcommands: add, search, list and remove images."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.errors import InputError
from data_prep.progress import printable
from rmgl_jax.export.model_file import TrainedModel, load_model
from rmgl_jax.gallery.command_options import (
    AddOptions,
    FilterOptions,
    ListOptions,
    RemoveOptions,
    SearchOptions,
)
from rmgl_jax.gallery.crop_sources import find_crops
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.entries import Entry, Filters
from rmgl_jax.gallery.gallery import Gallery
from rmgl_jax.gallery.identify import is_id
from rmgl_jax.gallery.same_person import DEFAULT_FPR, same_person_threshold
from rmgl_jax.gallery.times import parse_time


def add_images(options: AddOptions) -> None:
    """Runs `rmgl gallery add`."""
    # All are found before the first is added, so that mistakes show early and the end is known.
    found = find_crops(options.images, missing_ok=options.skip_bad)
    crops = [_with_metadata(crop, options) for crop in found]
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


def search_images(options: SearchOptions) -> None:
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


def remove_images(options: RemoveOptions) -> None:
    """Runs `rmgl gallery remove`."""
    if not options.images:
        raise InputError("Name the images to remove: ids and paths, as `rmgl gallery list` shows.")
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
    if text is None:
        return None
    try:
        if not text:
            raise ValueError("The time is empty.")
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise InputError(f"{name} must be a time as 2026-05-01T12:30, got {text!r}.") from error


_COLUMNS = ("path", "box", "camera", "time", "labels", "id")


def _cells(entry: Entry) -> tuple[str, ...]:
    time = ""
    if entry.time is not None:
        try:
            time = datetime.fromtimestamp(entry.time, UTC).isoformat(" ", "seconds")[:19]
        except (ValueError, OverflowError, OSError):  # years that datetime does not have
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
        table.add_row(*(Text(printable(row[i])) for i in shown))
    Console().print(table)


def _print(text: str) -> None:
    Console().print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False), flush=True)
