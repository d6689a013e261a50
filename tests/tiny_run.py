"""A tiny run in a process of its own, which is killed or meets a full disk: `WORKDIR EVENT STEP`.

Events
  kill         SIGKILL when STEP steps are done
  kill-commit  SIGKILL when the checkpoint of STEP is written but does not have its name yet
  kill-delete  SIGKILL when the checkpoint of STEP is partly deleted
  interrupt    SIGINT, as by Ctrl-C, when STEP steps are done
  full         from the first step on no file can grow beyond 64 kB, as if the disk were full
"""

import os
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from rmgl_jax.data.split import Split
from rmgl_jax.runtime import report_errors, silence_loggers
from rmgl_jax.training.loop import train_loop
from tests.tiny import tiny_config, tiny_images

_TINY = tiny_config(epochs=4)
# The smallest network, because most of the time goes into compiling it.
CONFIG = replace(
    _TINY,
    model=replace(
        _TINY.model,
        image_size=(32, 16),
        paths=("original",),
        original_abp="off",
        last_stage="res4",
        width=2,
    ),
)


def tiny_split() -> Split:
    """6 identities with 4 images each: three steps an epoch."""
    pids = np.repeat(np.arange(6, dtype=np.int32), 4)
    return Split(
        images=tiny_images(pids)[:, ::3, ::2],
        pids=pids,
        camids=np.arange(24, dtype=np.int32) % 2,
        names=[f"{number}.jpg" for number in range(24)],
        dataset="tiny",
        version="1.0.0",
        split="train",
    )


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
        if event == "interrupt" and done == at:
            os.kill(os.getpid(), signal.SIGINT)
        if event == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))

    silence_loggers()
    with report_errors(Console(width=500)):
        train_loop(CONFIG, tiny_split(), workdir, on_step=on_step)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
