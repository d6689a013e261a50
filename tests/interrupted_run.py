"""The tiny synthetic experiment, whose process gets SIGTERM at a step: `STEP OPTIONS...`."""

import os
import signal
import sys
import time
from functools import partial

from experiments import synthetic_rmgl
from rmgl_jax.experiment import run


def main(at: int) -> None:
    def on_step(done: int) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGTERM)
        if done >= at:
            time.sleep(1)  # The signal is looked for once a second.

    def interrupted(*arguments):
        from rmgl_jax.training import loop

        loop.train = partial(loop.train, on_step=on_step)
        return go(*arguments)

    go, run.run = run.run, interrupted
    run.main(synthetic_rmgl.PRESETS, {}, "")


if __name__ == "__main__":
    main(int(sys.argv.pop(1)))
