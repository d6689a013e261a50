"""Records a profile of some training steps, for XProf and TensorBoard."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax

from data_prep.errors import InputError, WriteError

PROFILE_NAME = "profile"
"""Directory of the profile in a run directory."""
WARM_UP = 5
"""Steps of the process before the recorded ones: the first are slower than the others."""


@contextlib.contextmanager
def profile_steps(directory: Path, steps: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to call after each step, which records `steps` steps after `WARM_UP` others.

    The profile is written when the last of them is done, or when the context ends before that.

    Args:
        directory: gets the profile, as `plugins/profile/TIME/*.xplane.pb`.
        steps: number of steps to record.

    Yields:
        Takes the number of steps done, which also counts those before a run was resumed.

    Raises:
        InputError: `steps` is less than 1.
        WriteError: `directory` cannot be written.
    """
    if steps < 1:
        raise InputError(f"--profile must be the number of steps to record, got {steps}.")
    first: int | None = None
    recording = False

    def on_step(done: int) -> None:
        nonlocal first, recording
        if first is None:
            first = done
        if done == first + WARM_UP - 1:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise WriteError(
                    f"The profile cannot be written to {directory}: {error.strerror or error}."
                ) from error
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # Every call of Python would be an event.
            jax.profiler.start_trace(directory, profiler_options=options)
            recording = True
        # Devices may still work on the last step that was started, but not on the one before.
        elif recording and done == first + WARM_UP + steps:
            recording = False
            jax.profiler.stop_trace()

    try:
        yield on_step
    finally:
        if recording:
            jax.profiler.stop_trace()
