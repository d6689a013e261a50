"""Stops a run on SIGTERM and Ctrl-C at a step whose state is saved."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

import jax
from jax.experimental import multihost_utils

from rmgl_jax import interrupts

_SECONDS_TO_SAVE = 300.0
"""Time from Ctrl-C until a step and its checkpoint must be finished."""


class Interrupted(SystemExit):
    """Stopped by SIGTERM after saving the state. The exit status is 143, as shells report it."""


class Stop:
    """A signal that asks the run to stop: SIGTERM or Ctrl-C."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._saved_step: int | None = None
        """The step that is saved, while nothing is lost if the run stops at once."""
        self._report: Callable[[Any], object] = sys.unraisablehook

    def request(self, number: int, frame: FrameType | None = None) -> None:
        """Handles the signal."""
        self.signal = number
        if jax.process_count() > 1:
            # Through the handler of jax.distributed, which reaches all processes.
            os.kill(os.getpid(), signal.SIGTERM)
        elif self._saved_step is not None:
            raise self.error(self._saved_step)

    def is_due(self, step: int) -> bool:
        """Returns whether the run must save and stop after `step`, the same in all processes."""
        if jax.process_count() > 1:
            # At different steps the others would wait for this process forever.
            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None

    @contextlib.contextmanager
    def at_once(self, saved_step: int) -> Iterator[None]:
        """Stops at once on a signal in the block, or before it."""
        self._stop_if_requested(saved_step)
        self._saved_step = saved_step
        before, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._report = before
        try:
            with interrupts.allow(interrupts.SECONDS):
                yield
        finally:
            self._saved_step = None
            sys.unraisablehook = before
        self._stop_if_requested(saved_step)

    def _stop_if_requested(self, saved_step: int) -> None:
        if self.signal is not None and jax.process_count() == 1:
            raise self.error(saved_step)

    def _unraisable(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, Interrupted):
            self._report(unraisable)
            return
        # A callback or destructor swallowed it: sent again, once that has returned.
        main = cast(int, threading.main_thread().ident)
        threading.Timer(0.05, signal.pthread_kill, [main, signal.SIGTERM]).start()

    def error(self, saved_step: int) -> BaseException:
        """Returns the exception that ends the run."""
        if self.signal == signal.SIGINT:
            return KeyboardInterrupt(f"Stopped by Ctrl-C; the state of step {saved_step} is saved.")
        return Interrupted(143)


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catches SIGTERM and Ctrl-C while the loop runs; signals reach the main thread only."""
    stop = Stop()
    handled = [signal.SIGTERM, signal.SIGINT]
    if jax.process_count() > 1:
        handled.remove(signal.SIGTERM)  # jax.distributed has a handler of its own.
    if threading.current_thread() is not threading.main_thread():
        handled = []
    # SIGINT is ignored in background jobs, and stays so.
    handled = [number for number in handled if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop.request) for number in handled}
    try:
        with interrupts.allow(_SECONDS_TO_SAVE):
            yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def end_on_sigterm() -> None:
    """From here on, SIGTERM ends one of several processes at once, with status 143.

    For what follows the last step, whose state is saved: `Stop.is_due` is not asked again, and the
    handler of jax.distributed would only wait for that.
    """
    if jax.process_count() > 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, frame: FrameType | None) -> None:
    print("Stopped by SIGTERM after the last step, which is saved.", file=sys.stderr, flush=True)
    # Leaving in the ordinary way would wait for the other processes.
    os._exit(143)
