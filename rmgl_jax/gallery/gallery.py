"""A gallery of person crops that lasts on disk and is searched by image, embedding or id."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console

from data_prep.errors import ExpectedError, InputError, MissingFileError
from data_prep.files import expand, write_text
from data_prep.workers import cores
from rmgl_jax.evaluation.embedding import progress_bar
from rmgl_jax.evaluation.query_expansion import expand_queries
from rmgl_jax.evaluation.reranking import rerank as rerank_distances
from rmgl_jax.export.model_file import TrainedModel, load_model, save_model
from rmgl_jax.gallery.checksums import Checksum
from rmgl_jax.gallery.collection import (
    COLLECTION,
    MAX_RESULTS,
    Collection,
    drop_unfinished,
    open_collection,
    read_settings,
)
from rmgl_jax.gallery.crops import Crop
from rmgl_jax.gallery.directory import (
    LOCK,
    MODEL,
    SETTINGS,
    has_gallery,
    in_use,
    only_process,
    read_text,
)
from rmgl_jax.gallery.embedder import Embedder, ImageLike
from rmgl_jax.gallery.entries import AddResult, Entry, Filters, Match, Skipped, check_text
from rmgl_jax.gallery.identify import identify, is_id, is_wide
from rmgl_jax.gallery.milvus import connect, disconnect, is_url, remove_half_written
from rmgl_jax.gallery.recall import measure_recall
from rmgl_jax.gallery.settings import Settings

RERANKED = 1000
"""Nearest images that re-ranking and query expansion order."""
PATIENCE = 10.0
"""Seconds to wait for another process that has the same directory open."""

T = TypeVar("T")


class Gallery:
    """Images with embeddings and metadata in Milvus; `Gallery.open` opens or makes one.

    A gallery is a directory, which Milvus Lite opens in this process, or a collection on a Milvus
    server. Only one process at a time can open a directory. Usable as a context manager.
    """

    def __init__(
        self,
        collection: Collection,
        settings: Settings,
        model: TrainedModel | None,
        batch_size: int,
        resources: ExitStack,
    ) -> None:
        """Takes the parts that `open` made."""
        self.settings = settings
        """Settings that all embeddings of the gallery have in common."""
        self._collection = collection
        self._given_model = model
        self._batch_size = batch_size
        self._resources = resources

    @classmethod
    def open(
        cls,
        location: str | os.PathLike[str],
        model: TrainedModel | None = None,
        *,
        create: bool = False,
        flip: bool | None = None,
        dim: int | None = None,
        index: str | None = None,
        name: str = COLLECTION,
        batch_size: int = 64,
        patience: float = PATIENCE,
    ) -> "Gallery":
        """Opens a gallery, or makes it.

        Args:
            location: a directory, or the URL of a Milvus server (`http://host:19530`).
            model: model of the embeddings. A directory has a copy of it; with a server it is needed
                to embed images.
            create: Make the gallery if there is none. A model that is calibrated for the gallery
                replaces the copy.
            flip: Average each embedding with that of the mirrored image; None is as in the
                gallery, and True in a new one.
            dim: width of projected embeddings. None is as in the gallery; in a new one it is the
                default width of the model's projection, or the full width without a projection.
            index: "exact" compares a query with all images; "hnsw" is an approximate graph index.
                None is as in the gallery, and "exact" in a new one.
            name: name of the collection on a server.
            batch_size: images embedded at once by `add`.
            patience: seconds to wait for another process that has the directory open.

        Raises:
            MissingFileError: there is no gallery and `create` is False.
            MissingPackageError: pymilvus or Milvus Lite is not installed.
            InputError: the model or an option is not the gallery's; the gallery is damaged or open
                in another process; the directory holds something else; or the server cannot be
                reached.
            WriteError: the directory cannot be written.
        """
        if not (name.isascii() and name.isidentifier()):
            raise InputError(f"A collection's name has letters, digits and _ only, got {name!r}.")
        place = os.fspath(location)
        if not is_url(place):
            if name != COLLECTION:
                raise InputError(f"Only galleries on servers have names; {place} is a directory.")
            place = str(expand(place).absolute())
        requested = {"flip": flip, "dim": dim, "index": index}

        def new_settings() -> Settings:
            if not create:
                raise MissingFileError(f"There is no gallery {name} on {place}.")
            if model is None:
                raise InputError(f"To make the gallery {place}, give its model (--model).")
            width = model.default_dim if dim is None else dim
            return Settings.of(Embedder(model, 1, True if flip is None else flip, width), index)

        with ExitStack() as resources:
            known: Mapping[str, Checksum] | None = {}
            if is_url(place):
                client = connect(place)
                resources.callback(disconnect, client, place)
                text, source = read_settings(client, place, name), f"The gallery {name} on {place}"
            else:
                # With a lock another process may be making it.
                if not has_gallery(Path(place), create) and not Path(place, LOCK).exists():
                    new_settings()  # An option that is refused leaves no directory.
                known = resources.enter_context(only_process(Path(place), patience))
                text, source = read_text(Path(place, SETTINGS)), str(Path(place, SETTINGS))
            if text is None:
                settings = new_settings()
            else:
                settings = Settings.from_json(text, source)
                settings.check(place, requested)
                if model is not None:
                    settings.check_embedder(place, Embedder(model, 1, settings.flip, settings.dim))
            if not is_url(place):
                # From here on the files change. What was refused before leaves the gallery closed.
                resources.enter_context(in_use(Path(place), known))
                if known is None:
                    remove_half_written(place)
                client = connect(place)
                resources.callback(disconnect, client, place)
                if text is None:
                    drop_unfinished(client, place, name)
            collection = open_collection(
                client, place, name, settings.index, settings.width, settings.to_json()
            )
            if known is None:
                collection.remove_copies()
            if create and model is not None and not is_url(place):
                if text is None or _is_calibrated(model, settings):
                    save_model(model, Path(place, MODEL))
                if text is None:
                    # Last, so that a gallery with settings is complete.
                    write_text(Path(place, SETTINGS), settings.to_json())
            return cls(collection, settings, model, batch_size, resources.pop_all())

    def add(
        self,
        crops: Iterable[Crop | str | os.PathLike[str]],
        *,
        skip_bad: bool = False,
        progress: bool = False,
    ) -> AddResult:
        """Embeds and stores images, batch by batch; those that are in the gallery are passed over.

        An image is recognized by its bytes and box, wherever its file is. Each batch that the
        progress bar counts is stored: it survives the end of this process at any moment, and
        adding the same images again goes on with the rest.

        Args:
            crops: the images, as from `find_crops`; a path is its whole image without metadata.
            skip_bad: Leave out images that cannot be read or stored, and list them in the result.
            progress: Show a progress bar on standard error.

        Raises:
            MissingFileError: a file does not exist, without `skip_bad`.
            InputError: an image cannot be decoded, or its metadata cannot be stored, without
                `skip_bad`.
            WriteError: the disk is full.
        """
        added = present = 0
        skipped: list[Skipped] = []
        entries: dict[Crop, Entry] = {}
        bad: dict[str, str] = {}
        wide: list[str] = []
        repeated: list[Entry] = []

        def new_crops() -> Iterator[Crop]:
            nonlocal present
            seen: set[str] = set()
            with ThreadPoolExecutor(cores()) as pool:
                iterator = iter(crops)
                while part := list(map(_to_crop, islice(iterator, self._batch_size))):
                    results = list(pool.map(identify, part))
                    found = [result for result in results if isinstance(result, Entry)]
                    known = self._collection.get([entry.id for entry in found])
                    for crop, result in zip(part, results, strict=True):
                        if isinstance(result, ExpectedError):
                            if not skip_bad:
                                raise result
                            skipped.append(Skipped(str(crop), str(result)))
                        elif result.id in known:
                            present += 1
                        elif result.id in seen:
                            repeated.append(result)
                        else:
                            seen.add(result.id)
                            entries[crop] = result
                            yield crop

        total = len(crops) if isinstance(crops, Sized) else None
        with progress_bar(Console(stderr=True) if progress else None) as bar:
            task = bar.add_task("adding", total=total)
            for batch in self._embedder(self._batch_size).stream(new_crops(), skip_bad):
                stored = [entries.pop(crop) for crop in batch.images if isinstance(crop, Crop)]
                if stored:
                    self._collection.upsert(stored, batch.embeddings)
                added += len(stored)
                wide += [
                    str(crop) for crop in batch.images if isinstance(crop, Crop) if is_wide(crop)
                ]
                for crop, reason in batch.skipped:
                    assert isinstance(crop, Crop)
                    bad[entries.pop(crop).id] = reason
                    skipped.append(Skipped(str(crop), reason))
                bar.update(task, completed=added + present + len(skipped) + len(repeated))
        skipped += [Skipped(entry.path, bad[entry.id]) for entry in repeated if entry.id in bad]
        present += sum(entry.id not in bad for entry in repeated)
        return AddResult(added, present, tuple(skipped), tuple(wide))

    def search(
        self,
        query: ImageLike,
        top: int = 10,
        filters: Filters = Filters(),  # noqa: B008 (frozen)
        *,
        rerank: bool = False,
        expand: bool = False,
    ) -> list[Match]:
        """Finds the images that are most similar to a query.

        Args:
            query: an image (a path, a crop, a Pillow image, a uint8 array [H, W, 3]), an embedding
                (a floating-point array [E]), or the id of an image of the gallery as a string of 32
                hexadecimal digits, which then is the first result itself.
            top: number of results, at most 16,384.
            filters: conditions on the results.
            rerank: Order the nearest 1,000 images by k-reciprocal re-ranking.
            expand: Order the nearest 1,000 images by their similarity to the expanded query, the
                query plus its 5 nearest images.

        Returns:
            At most `top` images, best first. The score is the cosine similarity to the query; with
            `rerank` or `expand` the order is another one.

        Raises:
            MissingFileError: the file of the query does not exist.
            InputError: the query cannot be decoded, is no embedding of the gallery's width or has
                an unknown id; or `top` is out of range.
        """
        _check_top(top)
        vector = self._vector(query)
        count = max(top, RERANKED) if rerank or expand else top
        (found,) = self._collection.nearest(vector[None], count, filters)
        matches = [Match(entry, min(max(score, -1.0), 1.0)) for entry, score in found]
        # With fewer than two images there is nothing to order.
        if (rerank or expand) and len(matches) > 1:
            head = matches[:RERANKED]
            order = self._order(vector, [match.entry.id for match in head], rerank, expand)
            matches[:RERANKED] = [head[i] for i in order]
        return matches[:top]

    def _order(self, vector: np.ndarray, ids: list[str], rerank: bool, expand: bool) -> np.ndarray:
        """Orders images by query expansion, re-ranking or both; returns their indices."""
        embeddings = self._collection.embeddings(ids)
        # Another process may have removed one meanwhile: it keeps a place.
        gallery = np.stack([embeddings.get(id, vector) for id in ids])
        queries = vector[None]
        if expand:
            queries = expand_queries(queries, gallery)
        distances = rerank_distances(queries, gallery) if rerank else -queries @ gallery.T
        return np.argsort(distances[0], kind="stable")

    def _vector(self, query: ImageLike) -> np.ndarray:
        """Returns the embedding of a query, float32 [E] of unit length."""
        if isinstance(query, np.ndarray) and np.issubdtype(query.dtype, np.floating):
            if query.shape != (self.settings.width,):
                raise InputError(
                    f"An embedding of this gallery has the shape ({self.settings.width},), got "
                    f"{query.shape}."
                )
            length = float(np.linalg.norm(query.astype(np.float64)))
            if not 0 < length < math.inf:
                raise InputError(f"An embedding must be finite and not zero, got length {length}.")
            return np.asarray(query / length, np.float32)
        if isinstance(query, str) and is_id(query):
            return self.embedding(query)
        return self._embedder(1)([query])[0]

    def nearest(
        self,
        embeddings: np.ndarray,
        top: int,
        filters: Filters = Filters(),  # noqa: B008 (frozen)
    ) -> list[list[tuple[str, float]]]:
        """Finds ids and scores of many queries, best first: faster than `search` for evaluations.

        Args:
            embeddings: queries of unit length, float32 [Q, E].
            top: number of results of each query, at most 16,384.
            filters: conditions on the results.

        Raises:
            InputError: `top` is out of range, the width is not the gallery's, or a value is not
                finite.
        """
        _check_top(top)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.settings.width:
            raise InputError(
                f"Embeddings of this gallery have the shape (Q, {self.settings.width}), got "
                f"{embeddings.shape}."
            )
        if not np.isfinite(embeddings).all():
            raise InputError("Queries must be finite; the embeddings have NaN or infinity.")
        found = self._collection.search(embeddings, top, filters, fields=("id",))
        return [[(row["id"], score) for row, score in hits] for hits in found]

    def entries(
        self,
        filters: Filters = Filters(),  # noqa: B008 (frozen)
        offset: int = 0,
        limit: int = 50,
    ) -> list[Entry]:
        """Reads a page of entries in the order of their ids, which is arbitrary but stays.

        Args:
            filters: conditions on the entries.
            offset: number of entries before the page.
            limit: most entries of the page.
        """
        if offset < 0 or limit < 1:
            raise InputError(f"A page needs an offset and a limit, got {offset} and {limit}.")
        return self._collection.page(filters, offset, limit)

    def scan(
        self,
        filters: Filters = Filters(),  # noqa: B008 (frozen)
    ) -> Iterator[Entry]:
        """Yields all entries in the order of their ids."""
        return self._collection.scan(filters)

    def entry(self, id: str) -> Entry:
        """Reads an entry.

        Raises:
            InputError: the gallery has no image of this id.
        """
        return self._known(id, self._collection.get([id]))

    def embedding(self, id: str) -> np.ndarray:
        """Reads the embedding of an image, float32 [E] of unit length.

        Raises:
            InputError: the gallery has no image of this id.
        """
        return self._known(id, self._collection.embeddings([id]))

    def _known(self, id: str, found: Mapping[str, T]) -> T:
        if id not in found:
            raise InputError(f"The gallery {self.location} has no image with the id {id!r}.")
        return found[id]

    def ids_of(self, path: str | os.PathLike[str]) -> list[str]:
        """Finds the ids of an image file: none, one, or several if boxes of it were added."""
        absolute = os.path.abspath(os.path.expanduser(os.fspath(path)))
        try:
            check_text("A path", absolute)
        except InputError:  # `add` refuses such a path too.
            return []
        return self._collection.ids_of(absolute)

    def cameras(self) -> list[str]:
        """Lists the known cameras, sorted."""
        return self._collection.cameras()

    def remove(self, ids: Iterable[str]) -> int:
        """Removes images, all of them or none.

        Returns:
            Number of images that were removed.

        Raises:
            InputError: the gallery has no image of an id.
        """
        unique = list(dict.fromkeys(ids))
        found = self._collection.get(unique)
        for id in unique:
            self._known(id, found)
        self._collection.delete(unique)
        return len(unique)

    def recall(self, top: int = 10, queries: int = 100) -> float:
        """Measures the index: share of the exact `top` results of a search that it finds.

        Args:
            top: results of a search.
            queries: images of the gallery to search for, taken at random.

        Returns:
            Recall from 0 to 1, averaged over the queries; 1 in an empty gallery.

        Raises:
            InputError: `top` is out of range, or there are no queries.
        """
        _check_top(top)
        if queries < 1:
            raise InputError(f"The recall needs at least 1 query, got {queries}.")
        return measure_recall(self._collection, top, queries)

    @property
    def location(self) -> str:
        """Directory or URL."""
        return self._collection.location

    @property
    def has_model(self) -> bool:
        """True if `model` is known: always in a directory, on a server if it was given."""
        return self._given_model is not None or not is_url(self.location)

    @cached_property
    def model(self) -> TrainedModel:
        """Model of the embeddings: the one given to `open`, or the directory's copy.

        Raises:
            InputError: no model was given, and the gallery is on a server; or the copy is damaged.
            MissingFileError: the copy is not there.
        """
        if self._given_model is not None:
            return self._given_model
        if not self.has_model:
            raise InputError(
                f"To embed images, a gallery on a server ({self.location}) needs its model."
            )
        model = load_model(Path(self.location, MODEL))
        embedder = Embedder(model, 1, self.settings.flip, self.settings.dim)
        self.settings.check_embedder(self.location, embedder)
        return model

    def _embedder(self, batch_size: int) -> Embedder:
        return Embedder(self.model, batch_size, self.settings.flip, self.settings.dim)

    def __len__(self) -> int:
        return len(self._collection)

    def __enter__(self) -> "Gallery":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the gallery, which other processes can then open."""
        self._resources.close()


def _is_calibrated(model: TrainedModel, settings: Settings) -> bool:
    calibration = model.calibration
    return calibration is not None and calibration.applies_to(settings.digest, settings.flip)


def _to_crop(image: Crop | str | os.PathLike[str]) -> Crop:
    return image if isinstance(image, Crop) else Crop(Path(image))


def _check_top(top: int) -> None:
    if not 1 <= top <= MAX_RESULTS:
        raise InputError(f"The number of results must be from 1 to {MAX_RESULTS:,}, got {top:,}.")
