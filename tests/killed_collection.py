"""Writes rows into a collection without end, and prints the number of rows after each batch."""

import sys
from itertools import count

import numpy as np

from rmgl_jax.gallery.collection import Collection, open_collection
from rmgl_jax.gallery.entries import Entry
from rmgl_jax.gallery.milvus import connect, remove_half_written

WIDTH, BATCH = 8, 5


def rows(first: int) -> tuple[list[Entry], np.ndarray]:
    """A batch of entries and embeddings, the same in every process."""
    entries = [
        Entry(f"{number:032x}", f"/{number}.jpg", None, str(number % 3), float(number), ("a", "b"))
        for number in range(first, first + BATCH)
    ]
    embeddings = np.random.default_rng(first).normal(size=(BATCH, WIDTH)).astype(np.float32)
    return entries, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def reopen(location: str) -> Collection:
    """Opens a directory as a gallery does after its process was killed."""
    remove_half_written(location)
    collection = open_collection(connect(location), location, "rows", "exact", WIDTH, "")
    collection.remove_copies()
    return collection


def main(location: str) -> None:
    collection = reopen(location)
    start = len(collection) // BATCH * BATCH
    for number in count(start // BATCH):
        collection.upsert(*rows(BATCH * number))
        print(BATCH * (number + 1), flush=True)
        if number % 7 == 6:
            collection.flush()


if __name__ == "__main__":
    main(sys.argv[1])
