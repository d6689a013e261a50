"""What several processes must agree on before they train together."""

from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.training.run_directory import CONFIG_NAME, init_run_directory


def init_run_directory_together(config: ExperimentConfig, workdir: Path) -> None:
    """Runs `init_run_directory` on process 0 and checks its result on all others.

    What fails on one process ends all: else they would wait for each other in the first step, or
    in the first checkpoint.

    Raises:
        workdir.ConfigChangedError: if `workdir` holds a run of another configuration.
        FileNotFoundError: if the processes do not share `workdir`.
        OSError: if it can't be made or written.
        RuntimeError: if another process raised one of these.
    """
    if jax.process_count() == 1:
        return init_run_directory(config, workdir)
    for write in (True, False):  # process 0 first
        problem = None
        if write == (jax.process_index() == 0):
            problem = _attempt(config, workdir, write)
        failed = multihost_utils.process_allgather(np.array(problem is not None))
        if problem is not None:
            raise problem
        if failed.any():
            raise RuntimeError(
                f"Stopped, because process {np.flatnonzero(failed)[0]} can't use the work "
                "directory; it says why."
            )


def _attempt(config: ExperimentConfig, workdir: Path, write: bool) -> ValueError | OSError | None:
    try:
        init_run_directory(config, workdir, write)
        if not (workdir / CONFIG_NAME).is_file():
            raise FileNotFoundError(
                f"Process {jax.process_index()} does not find the {CONFIG_NAME} that process 0 "
                f"wrote: the work directory {workdir} must be one that all processes share."
            )
    except (ValueError, OSError) as error:
        return error
    return None
