"""Work on many items in several processes."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from data_prep.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 128
"""Items that a worker gets at a time."""
FEW = 1024
"""Below this number of items no processes are started: starting them takes as long."""


def cores() -> int:
    """Number of processors that this process may use."""
    # macOS has no affinity.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_chunks(
    work: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    description: str,
    processes: int | None = None,
) -> Iterator[Result]:
    """Yields `work(chunk)` for consecutive chunks of the items, in order, under a progress bar.

    Args:
      work: a function that can be pickled.
      items: a sequence whose slices can be pickled.
      description: label of the progress bar.
      processes: number of workers; None is one for each processor.
    """
    processes = processes or cores()
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    sizes = [len(chunk) for chunk in chunks]
    if processes == 1 or len(items) < FEW:
        yield from track(map(work, chunks), sizes, description)
        return
    # Not fork: the caller may run threads (JAX does), and a forked copy of those can hang.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        try:
            yield from track(pool.map(work, chunks), sizes, description)
        except BaseException:
            # Without this, leaving the pool waits for every chunk.
            pool.shutdown(cancel_futures=True)
            raise
