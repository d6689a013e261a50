"""The tiny synthetic experiment, whose process gets SIGTERM at a step: `STEP OPTIONS...`."""

import os
import signal
import sys
import time

from rich.console import Console

from experiments import synthetic_rmgl
from rmgl_jax.experiment.options import parse_run
from rmgl_jax.experiment.run import train
from rmgl_jax.runtime import silence_loggers, start_jax


def main(at: int, arguments: list[str]) -> None:
    def on_step(done: int) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGTERM)
        if done >= at:
            time.sleep(1)  # The signal is looked for once a second.

    options = parse_run(synthetic_rmgl.PRESETS, "", arguments)
    silence_loggers()
    start_jax(options.distributed)
    train(
        options.experiment,
        options.workdir,
        data_dir=options.data.data_dir,
        console=Console(),
        on_step=on_step,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
