"""A tiny run in a process of its own, with an event: `WORKDIR EVENT STEP`.

Events
  none         the run goes on to its end
  kill         SIGKILL when STEP steps are done
  kill-commit  SIGKILL when the checkpoint of STEP is written but does not have its name yet
  kill-delete  SIGKILL when the checkpoint of STEP is partly deleted
  full         from the first step on no file can grow beyond 64 kB, as if the disk were full

The state of a run that comes to its end is in `WORKDIR/state.npz`.
"""

import os
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from rmgl_jax.data.store import Split
from rmgl_jax.runtime import report_errors, silence_loggers
from rmgl_jax.training.loop import train_loop
from tests.tiny import tiny_config, tiny_images

_TINY = tiny_config(epochs=4)
# One path of one branch: what is tested here is the run, and time goes into compiling the model.
CONFIG = replace(_TINY, model=replace(_TINY.model, paths=("original",)))


def tiny_split() -> Split:
    """6 identities with 4 images each: three steps an epoch."""
    pids = np.repeat(np.arange(6, dtype=np.int32), 4)
    return Split(
        images=tiny_images(pids),
        pids=pids,
        camids=np.arange(24, dtype=np.int32) % 2,
        names=[f"{number}.jpg" for number in range(24)],
        dataset="tiny",
        version="1.0.0",
        split="train",
    )


def named_leaves(state) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main(workdir: Path, event: str, at: int) -> None:
    rename, rmtree = os.rename, shutil.rmtree

    def rename_or_die(source, target, **options):
        if event == "kill-commit" and Path(target).name == str(at):
            die()
        rename(source, target, **options)

    def rmtree_or_die(path, *arguments, **options):
        if event == "kill-delete" and Path(path).name == str(at):
            rmtree(Path(path) / "default")
            die()
        rmtree(path, *arguments, **options)

    os.rename, shutil.rmtree = rename_or_die, rmtree_or_die

    def on_step(done: int) -> None:
        if event == "kill" and done == at:
            die()
        if event == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))

    silence_loggers()
    with report_errors(Console(width=500)):
        state = train_loop(CONFIG, tiny_split(), workdir, on_step=on_step)
    np.savez(workdir / "state.npz", **named_leaves(state))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
