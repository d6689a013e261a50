"""Ends a command with one line and status 130 on Ctrl-C, within a bounded time.

Python turns Ctrl-C into a KeyboardInterrupt in the main thread. That alone is not enough: a
compiler or decoder may run for minutes before Python gets there, and callbacks, destructors and
optional imports swallow the exception. So a thread of this module receives the signal as well, and
ends the process if it is still there after some seconds, or on a second Ctrl-C.

Only command lines use this. In the process of another program nothing changes.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, cast

STATUS = 130
"""Exit status of an interrupted process, as shells report it."""
SECONDS = 10.0
"""Time from Ctrl-C to the end of the process, unless a caller allows another."""
_REPEAT_SECONDS = 1.0
"""Signals within this time are the same Ctrl-C, which may arrive from terminal and parent."""


class _Watch:
    """The signal handler of the process, and the thread that bounds its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        """Time from Ctrl-C to the forced end; 0 while nothing has to be cleaned up."""
        self.since: float | None = None
        """Time from which it counts; None before Ctrl-C."""
        self._same_until: float | None = None
        """Until then signals are the first Ctrl-C; None before it."""
        self._raises = True
        """Raise a KeyboardInterrupt on the next signal: one for a Ctrl-C, or it would end the
        clean-up after the one before."""
        self._swallowed = False
        self._ended = threading.Lock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = (
            signal.signal(signal.SIGINT, self._handle),
            signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False),
            sys.unraisablehook,
            threading.excepthook,
        )
        sys.unraisablehook, threading.excepthook = self._unraisable, self._thread_error
        threading.Thread(target=self._run, name="interrupts", daemon=True).start()

    def close(self) -> None:
        handler, descriptor, sys.unraisablehook, threading.excepthook = self._before
        signal.set_wakeup_fd(descriptor)
        signal.signal(signal.SIGINT, handler)
        os.close(self._writer)

    def said(self) -> bool:
        """Returns whether the line was printed before; it is printed by the one who asks first."""
        return not self._ended.acquire(blocking=False)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.since is None:
            self.since = time.monotonic()
        if self.seconds == 0:
            self._end()
        if self._raises:
            self._raises = False
            raise KeyboardInterrupt

    def _press(self) -> None:
        """Counts a signal. Only the thread does: the handler may run much later."""
        now = time.monotonic()
        if self.since is None:
            self.since = now
        if self._same_until is None:
            self._same_until = now + _REPEAT_SECONDS
        elif now > self._same_until:
            self._end()

    def _run(self) -> None:
        """Waits for SIGINT, then for the end of the process."""
        while True:
            ready, _, _ = select.select([self._reader], [], [], self.since and 0.1)
            received = os.read(self._reader, 64) if ready else None
            if received == b"":
                os.close(self._reader)
                return
            if received and signal.SIGINT in received:
                self._press()
            if self.since is not None and time.monotonic() - self.since >= self.seconds:
                self._end()
            if self._swallowed:
                self._swallowed, self._raises = False, True
                self._same_until = time.monotonic() + _REPEAT_SECONDS
                signal.pthread_kill(cast(int, threading.main_thread().ident), signal.SIGINT)

    def _end(self) -> None:
        if self.said():
            time.sleep(0.2)  # The other thread may just be printing it.
        else:
            # A progress bar may have hidden the cursor.
            if os.isatty(1):
                os.write(1, b"\x1b[?25h")
            os.write(2, b"Interrupted.\n")
        os._exit(STATUS)

    def _unraisable(self, unraisable: Any) -> None:
        if self.since is None:
            self._before[2](unraisable)
        elif issubclass(unraisable.exc_type, KeyboardInterrupt):
            # A callback or destructor swallowed it. The thread sends it again.
            self._swallowed = True

    def _thread_error(self, arguments: Any) -> None:
        if self.since is None:
            self._before[3](arguments)


_watch: _Watch | None = None


def _is_default() -> bool:
    """Returns whether Ctrl-C raises a KeyboardInterrupt in this thread."""
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def end_at_once() -> None:
    """Ends the process on Ctrl-C without cleaning up, but for blocks of `watch` that follow.

    For the start of a command, where a KeyboardInterrupt would end in the traceback of an import.
    """
    global _watch
    if _watch is None and _is_default():
        _watch = _Watch(seconds=0)


@contextlib.contextmanager
def watch(seconds: float = SECONDS) -> Iterator[None]:
    """Ends the process on Ctrl-C in the block with one line and status 130.

    A KeyboardInterrupt is raised as usual, for the caller to clean up and end; the process ends by
    force after the given time. Blocks may be nested: the innermost decides the time. Does nothing
    in other threads than the main one, and where SIGINT is ignored, as in background jobs.

    Args:
        seconds: time for the KeyboardInterrupt to end the process; 0 ends it without.
    """
    global _watch
    if _watch is not None:
        with allow(seconds):
            yield
        return
    if not _is_default():
        yield
        return
    _watch = opened = _Watch(seconds)
    try:
        yield
    finally:
        # After Ctrl-C it stays, because the end of the process can be late as well.
        if opened.since is None:
            _watch = None
            opened.close()


@contextlib.contextmanager
def allow(seconds: float) -> Iterator[None]:
    """Changes the time that an enclosing `watch` allows; without one it does nothing."""
    watching = _watch
    if watching is None:
        yield
        return
    before, watching.seconds = watching.seconds, seconds
    try:
        yield
    finally:
        watching.seconds = before
        if watching.since is not None:
            watching.since = time.monotonic()


def requested() -> bool:
    """Returns whether Ctrl-C was pressed in a block of `watch`."""
    return _watch is not None and _watch.since is not None


def said() -> bool:
    """Returns whether the line about Ctrl-C is printed already; the first caller prints it."""
    return _watch is not None and _watch.said()
