"""Options of `rmgl gallery`'s subcommands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rmgl_jax.gallery.collection import COLLECTION


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
    """Run directory or model file; needed to make a gallery, and with a server. A gallery keeps the
    thresholds of a calibrated one."""
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
    """Run directory or model file; needed with a server, and for thresholds that a gallery made
    before the calibration does not have."""
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
