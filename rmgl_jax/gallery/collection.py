"""A collection of embeddings and metadata in Milvus.

A row has the fields `id` (primary key), `path`, `box`, `camera`, `time`, `labels` and `embedding`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from data_prep.errors import InputError
from rmgl_jax.gallery.entries import Entry, Filters
from rmgl_jax.gallery.expressions import UNKNOWN_TIME, all_of, expression, quote, quote_all
from rmgl_jax.gallery.milvus import milvus_errors

T = TypeVar("T")

COLLECTION = "rmgl_gallery"
"""Name of the collection of a gallery, unless a server's is given another one."""
MAX_RESULTS = 16_384
"""Most results of a search, a limit of Milvus."""
MAX_PATH, MAX_TEXT, MAX_LABELS = 32_768, 1024, 256
"""Most bytes of a path, most bytes of a camera or label, and most labels of an image."""

_FIELDS = ("id", "path", "box", "camera", "time", "labels")
_INDEXES: dict[str, tuple[str, dict[str, int]]] = {
    "exact": ("FLAT", {}),
    "hnsw": ("HNSW", {"M": 32, "efConstruction": 200}),
}
# Rows that are fetched with their embeddings, and without, in one message.
_WITH_EMBEDDINGS, _WITHOUT = 500, 4000


@dataclass(frozen=True, eq=False)
class Collection:
    """A collection in Milvus; `open_collection` makes it."""

    client: Any
    """The `MilvusClient`."""
    name: str
    """Name of the collection."""
    location: str
    """Directory or URL of the gallery, for messages."""
    index: str
    """"exact" or "hnsw"."""

    def upsert(self, entries: Sequence[Entry], embeddings: np.ndarray) -> None:
        """Writes rows; those whose id exists are replaced. They survive the process's end.

        Args:
            entries: M entries.
            embeddings: their embeddings, float32 [M, E].

        Raises:
            WriteError: the disk is full.
        """
        rows = [
            {
                "id": entry.id,
                "path": entry.path,
                "box": "" if entry.box is None else ",".join(map(str, entry.box)),
                "camera": entry.camera,
                "time": UNKNOWN_TIME if entry.time is None else float(entry.time),
                "labels": list(entry.labels),
                "embedding": embedding,
            }
            for entry, embedding in zip(entries, embeddings, strict=True)
        ]
        with milvus_errors(self.location):
            self.client.upsert(self.name, rows)

    def get(self, ids: Sequence[str]) -> dict[str, Entry]:
        """Reads the entries that exist among the ids."""
        rows = self._query_ids(ids, _FIELDS, _WITHOUT)
        return {row["id"]: _to_entry(row) for row in rows}

    def embeddings(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Reads the embeddings [E] of the ids that exist among the ids."""
        rows = self._query_ids(ids, ("id", "embedding"), _WITH_EMBEDDINGS)
        return {row["id"]: np.asarray(row["embedding"], np.float32) for row in rows}

    def _query_ids(
        self, ids: Sequence[str], fields: Sequence[str], chunk: int
    ) -> Iterator[dict[str, Any]]:
        for part in chunks(ids, chunk):
            with milvus_errors(self.location):
                yield from self.client.query(
                    self.name, filter=f"id in {quote_all(part)}", output_fields=list(fields)
                )

    def search(
        self,
        embeddings: np.ndarray,
        top: int,
        filters: Filters,
        fields: Sequence[str] = _FIELDS,
    ) -> list[list[tuple[dict[str, Any], float]]]:
        """Finds the rows with the greatest inner products.

        Args:
            embeddings: queries of unit length, float32 [Q, E].
            top: most rows of a query, at most `MAX_RESULTS`.
            filters: conditions on the rows.
            fields: fields that the rows are read with.

        Returns:
            Rows and inner products of each query, best first.
        """
        params = {} if self.index == "exact" else {"ef": max(256, top)}
        found = []
        # An answer of millions of rows would exceed the size of a message.
        for part in chunks(embeddings, max(1, 100_000 // top)):
            with milvus_errors(self.location):
                found += self.client.search(
                    self.name,
                    data=list(part),
                    anns_field="embedding",
                    limit=top,
                    filter=expression(filters),
                    # Without any field Milvus Lite sends all of them, embeddings too.
                    output_fields=list(fields),
                    search_params={"metric_type": "IP", "params": params},
                )
        return [
            [({**hit["entity"], "id": hit["id"]}, float(hit["distance"])) for hit in hits]
            for hits in found
        ]

    def nearest(
        self, embeddings: np.ndarray, top: int, filters: Filters
    ) -> list[list[tuple[Entry, float]]]:
        """Finds entries and inner products of each query [Q, E], best first; see `search`."""
        found = self.search(embeddings, top, filters)
        return [[(_to_entry(row), score) for row, score in hits] for hits in found]

    def page(self, filters: Filters, offset: int, limit: int) -> list[Entry]:
        """Reads entries in the order of their ids, from the one numbered `offset` on."""
        if offset + limit > MAX_RESULTS:
            return list(islice(self.scan(filters), offset, offset + limit))
        rows = self._page(expression(filters), _FIELDS, limit, offset)
        return [_to_entry(row) for row in rows]

    def scan(self, filters: Filters) -> Iterator[Entry]:
        """Yields all entries in the order of their ids."""
        return map(_to_entry, self._iterate(filters, _FIELDS, _WITHOUT))

    def scan_embeddings(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields id and embedding [E] of every row, in the order of the ids."""
        for row in self._iterate(Filters(), ("id", "embedding"), _WITH_EMBEDDINGS):
            yield row["id"], np.asarray(row["embedding"], np.float32)

    def _iterate(
        self, filters: Filters, fields: Sequence[str], chunk: int
    ) -> Iterator[dict[str, Any]]:
        conditions = expression(filters)
        last = ""
        while rows := self._page(all_of(conditions, f"id > {quote(last)}"), fields, chunk):
            yield from rows
            last = rows[-1]["id"]

    def _page(
        self, conditions: str, fields: Sequence[str], limit: int, offset: int = 0
    ) -> list[dict[str, Any]]:
        """Reads rows in the order of their ids."""
        with milvus_errors(self.location):
            rows: list[dict[str, Any]] = self.client.query(
                self.name,
                filter=conditions,
                output_fields=list(fields),
                offset=offset,
                limit=limit,
                iterator="True",  # Milvus Lite then sorts by id, as servers always do.
            )
        return rows

    def ids_of(self, path: str) -> list[str]:
        """Finds the ids of a path: several if boxes of it were added."""
        with milvus_errors(self.location):
            rows = self.client.query(
                self.name, filter=f"path == {quote(path)}", output_fields=["id"]
            )
        return sorted(row["id"] for row in rows)

    def cameras(self) -> list[str]:
        """Lists the known cameras, sorted."""
        found: set[str] = set()
        # Milvus has no distinct values: each query asks for cameras that are not known yet.
        while True:
            known = Filters(not_cameras=("", *sorted(found)))
            with milvus_errors(self.location):
                rows = self.client.query(
                    self.name, filter=expression(known), output_fields=["camera"], limit=100
                )
            if not rows:
                return sorted(found)
            found |= {row["camera"] for row in rows}

    def delete(self, ids: Sequence[str]) -> None:
        """Deletes rows."""
        for part in chunks(ids, 1000):
            with milvus_errors(self.location):
                self.client.delete(self.name, filter=f"id in {quote_all(part)}")

    def remove_copies(self) -> None:
        """Removes second copies of rows, which Milvus Lite has if a kill interrupted a flush.

        It then reads the rows from both its log and the new segment, as two of the same age. A
        newer row replaces both.
        """
        with milvus_errors(self.location):
            rows = self.client.query(self.name, filter='id > ""', output_fields=["id"])
        counts = Counter(row["id"] for row in rows)
        for ids in chunks([id for id, count in counts.items() if count > 1], _WITH_EMBEDDINGS):
            entries, embeddings = self.get(ids), self.embeddings(ids)
            self.upsert([entries[id] for id in ids], np.stack([embeddings[id] for id in ids]))

    def flush(self) -> None:
        """Moves rows from the log into segments, which have the index."""
        with milvus_errors(self.location):
            self.client.flush(self.name)

    def __len__(self) -> int:
        with milvus_errors(self.location):
            (row,) = self.client.query(self.name, filter="", output_fields=["count(*)"])
        return int(row["count(*)"])


def open_collection(
    client: Any, location: str, name: str, index: str, width: int, settings: str
) -> Collection:
    """Opens a collection and makes what is absent of it.

    Args:
        client: see `connect`.
        location: directory or URL.
        name: name of the collection.
        index: "exact" or "hnsw".
        width: E, the width of the embeddings.
        settings: any text, which a server keeps as the description of the collection.
    """
    from pymilvus import DataType

    with milvus_errors(location):
        if not client.has_collection(name):
            schema = client.create_schema(
                auto_id=False, enable_dynamic_field=False, description=settings
            )
            schema.add_field("id", DataType.VARCHAR, max_length=64, is_primary=True)
            schema.add_field("path", DataType.VARCHAR, max_length=MAX_PATH)
            schema.add_field("box", DataType.VARCHAR, max_length=128)
            schema.add_field("camera", DataType.VARCHAR, max_length=MAX_TEXT)
            schema.add_field("time", DataType.DOUBLE)
            schema.add_field(
                "labels",
                DataType.ARRAY,
                element_type=DataType.VARCHAR,
                max_capacity=MAX_LABELS,
                max_length=MAX_TEXT,
            )
            schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=width)
            # Searches see everything that was added before them.
            client.create_collection(name, schema=schema, consistency_level="Strong")
        # A process that was killed may have made the collection, but not its index.
        if not client.list_indexes(name):
            kind, params = _INDEXES[index]
            indexes = client.prepare_index_params()
            indexes.add_index("embedding", index_type=kind, metric_type="IP", params=params)
            # Loading waits for it.
            client.create_index(name, indexes, sync=False)
        client.load_collection(name)
    return Collection(client, name, location, index)


def drop_unfinished(client: Any, location: str, name: str) -> None:
    """Drops the empty collection of a gallery whose making was interrupted, if there is one.

    Raises:
        InputError: the collection has rows.
    """
    with milvus_errors(location):
        if not client.has_collection(name):
            return
        if rows := int(client.get_collection_stats(name)["row_count"]):
            raise InputError(
                f"The gallery {location} is damaged: it has {rows:,} images, but no settings."
            )
        client.drop_collection(name)


def read_settings(client: Any, location: str, name: str) -> str | None:
    """Returns the description of a server's collection; None if there is no such collection."""
    with milvus_errors(location):
        if not client.has_collection(name):
            return None
        return str(client.describe_collection(name)["description"])


def _to_entry(row: dict[str, Any]) -> Entry:
    return Entry(
        id=row["id"],
        path=row["path"],
        box=_to_box(row["box"]) if row["box"] else None,
        camera=row["camera"],
        time=None if row["time"] == UNKNOWN_TIME else float(row["time"]),
        labels=tuple(row["labels"]),
    )


def _to_box(text: str) -> tuple[int, int, int, int]:
    # Galleries of earlier versions may hold edges such as "1.0".
    left, top, right, bottom = (round(float(edge)) for edge in text.split(","))
    return left, top, right, bottom


def chunks(items: Sequence[T] | np.ndarray, size: int) -> Iterator[Any]:
    """Yields consecutive slices of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
