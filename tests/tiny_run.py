"""A tiny run in a process of its own, which something befalls: `WORKDIR EVENT STEP`.

Events
  none         the run goes on to its end
  kill         SIGKILL when STEP steps are done
  kill-commit  SIGKILL when the checkpoint of STEP is written but does not have its name yet
  terminate    SIGTERM when STEP steps are done
  full         no file may grow beyond 64 kB once STEP steps are done, as if the disk were full

The state of a run that ends is in `WORKDIR/state.npz`.
"""

import os
import resource
import signal
import sys
from pathlib import Path

import jax
import numpy as np

from rmgl_jax.data.store import Split
from rmgl_jax.training.loop import train
from tests.tiny import tiny_config, tiny_images


def tiny_split(identities: int = 6, images: int = 4) -> Split:
    """6 identities x 4 images: three steps an epoch."""
    pids = np.repeat(np.arange(identities, dtype=np.int32), images)
    return Split(
        images=tiny_images(pids),
        pids=pids,
        camids=None,
        names=[f"{number}.jpg" for number in range(len(pids))],
        dataset="tiny",
        version="1.0.0",
        split="train",
    )


def named_leaves(state) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def main(workdir: Path, event: str, at: int) -> None:
    def on_step(done: int) -> None:
        if done != at:
            return
        if event == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif event == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
        elif event == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))

    if event == "kill-commit":
        rename = os.rename

        def kill_at_commit(source, target, **options):
            if Path(target).name == str(at):
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target, **options)

        os.rename = kill_at_commit

    state = train(tiny_config(epochs=4), tiny_split(), workdir, on_step=on_step)
    np.savez(workdir / "state.npz", **named_leaves(state))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
