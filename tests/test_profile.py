"""The profile of some steps: when it starts and ends, and that it names the steps."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from data_prep.errors import InputError, WriteError
from rmgl_jax.training.profile import WARM_UP, profile_steps


def run(directory, steps, first, last):
    """Steps `first` to `last` with a profile of `steps`; the steps that it names."""
    double = jax.jit(lambda x: 2 * x)
    with profile_steps(directory, steps) as on_step:
        for done in range(first, last + 1):
            with jax.profiler.StepTraceAnnotation("train", step_num=done):
                double(jnp.ones(3)).block_until_ready()
            on_step(done)
    assert len(list(directory.glob("plugins/profile/*/*.xplane.pb"))) <= 1
    # The same events as JSON: `jax.profiler.ProfileData` of jax 0.12 aborts the process.
    files = list(directory.glob("plugins/profile/*/*.trace.json.gz"))
    if not files:
        return None
    (file,) = files
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    return {int(event["args"]["step_num"]) for event in events if event.get("name") == "train"}


def test_profile_steps_names_the_steps_after_the_warm_up(tmp_path):
    first = 100  # of a run that resumes
    found = run(tmp_path / "whole", 3, first, first + 20)
    assert found == {first + WARM_UP + step for step in range(4)}


def test_profile_steps_is_written_by_a_run_that_ends_early(tmp_path):
    assert run(tmp_path / "early", 50, 1, WARM_UP + 2) == {WARM_UP + 1, WARM_UP + 2}
    assert run(tmp_path / "too_early", 50, 1, WARM_UP - 1) is None


def test_profile_steps_refuses_no_steps_and_directories_that_cannot_be_made(tmp_path):
    with pytest.raises(InputError, match="got 0"), profile_steps(tmp_path, 0):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file/profile"):
        run(tmp_path / "file" / "profile", 1, 1, 20)
