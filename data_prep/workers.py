"""Work on many items in several processes.

The workers are plain Python processes that import the function they run, and never the script that
the user started. So a script needs no `if __name__ == "__main__"` guard, and threads of the caller
(JAX starts some) do no harm. Threads would not do: Pillow holds Python's lock while it decodes.
"""

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

from data_prep.progress import track

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 128
"""The most items that a worker gets at a time."""
FEW = 1024
"""Below this number of items no processes are started: starting them takes as long."""

_PROGRAM = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from data_prep.workers import serve; serve()"
)


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
      work: a function that can be pickled: of a module, not of the script that is run.
      items: a sequence whose slices can be pickled.
      description: label of the progress bar.
      processes: number of workers; 1 works in this process. None is one for each processor, or 1
        for fewer than `FEW` items.

    Raises:
      RuntimeError: a worker process died, as when the system is out of memory.
      Exception: whatever `work` raises.
    """
    if processes is None:
        processes = 1 if len(items) < FEW else cores()
    size = max(1, min(CHUNK, -(-len(items) // processes)))
    chunks = [items[i : i + size] for i in range(0, len(items), size)]
    results = map(work, chunks) if processes == 1 else _map(work, chunks, processes)
    yield from track(results, [len(chunk) for chunk in chunks], description)


def _map(
    work: Callable[[Sequence[Item]], Result], chunks: Sequence[Sequence[Item]], processes: int
) -> Iterator[Result]:
    processes = min(processes, len(chunks))
    with ExitStack() as stack:
        workers = [_start(work, stack) for _ in range(processes)]
        for worker, chunk in zip(workers, chunks, strict=False):
            _send(worker, chunk)
        # Each worker has one chunk at a time, so that neither side waits for the other to read.
        for i in range(len(chunks)):
            worker = workers[i % processes]
            result = _receive(worker)
            if i + processes < len(chunks):
                _send(worker, chunks[i + processes])
            yield result


def _start(work: Callable[..., Any], stack: ExitStack) -> subprocess.Popen[bytes]:
    """A process that runs `work` on the chunks it is sent, until the stack is closed."""
    # In a group of its own, because Ctrl-C in a terminal reaches the whole group of the parent
    # process, also while the worker still imports what it needs.
    worker = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    )
    stack.callback(_stop, worker)
    _send(worker, sys.path)
    _send(worker, work)
    return worker


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.kill()
    worker.communicate()


def _send(worker: subprocess.Popen[bytes], value: Any) -> None:
    assert worker.stdin is not None
    try:
        worker.stdin.write(pickle.dumps(value))
        worker.stdin.flush()
    except BrokenPipeError:
        raise _dead(worker) from None


def _receive(worker: subprocess.Popen[bytes]) -> Any:
    assert worker.stdout is not None
    try:
        result, error = pickle.load(worker.stdout)
    except EOFError:
        raise _dead(worker) from None
    if error is not None:
        raise error
    return result


def _dead(worker: subprocess.Popen[bytes]) -> RuntimeError:
    return RuntimeError(f"A worker process ended with status {worker.wait()}.")


def serve() -> None:
    """Runs a worker: reads a function and chunks from standard input, and writes the results."""
    # The parent process ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What the work prints must not get between the results.
    os.dup2(2, 1)
    try:
        work = pickle.load(incoming)
        while True:
            outgoing.write(_outcome(work, pickle.load(incoming)))
            outgoing.flush()
    except (EOFError, pickle.UnpicklingError, BrokenPipeError):
        # The parent process is done, or was killed.
        os._exit(0)


def _outcome(work: Callable[[Any], Any], chunk: Any) -> bytes:
    """The pickled pair of a result and None, or of None and the exception."""
    try:
        return pickle.dumps((work(chunk), None))
    except Exception as error:
        trace = traceback.format_exc()
        try:
            error.add_note(f"In a worker process:\n{trace}")
            return pickle.dumps((None, pickle.loads(pickle.dumps(error))))
        except Exception:
            return pickle.dumps((None, RuntimeError(trace)))
