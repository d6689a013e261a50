"""One of two processes of the tests in `test_step.py`: `ADDRESS NUMBER OUT`."""

import json
import sys
from pathlib import Path

import jax

if __name__ == "__main__":
    address, number, out = sys.argv[1:]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=int(number))

import numpy as np

from data_prep.errors import ExpectedError
from rmgl_jax.training.run_directory import init_run_directory
from rmgl_jax.training.step import make_train_step
from tests.tiny import KEY, small_config, tiny_batch


def run_steps(number: int, out: Path) -> None:
    """Three steps by jit and by pmap, each process feeding its half of every batch."""
    assert jax.process_count() == 2
    assert jax.device_count() == 4
    for parallel in ("jit", "pmap"):
        step = make_train_step(small_config(parallel=parallel), steps_per_epoch=10)
        state = step.replicate(step.create())
        run = None
        for index in range(3):
            half = {name: np.split(rows, 2)[number] for name, rows in tiny_batch(index).items()}
            arguments = state, step.put(half), jax.random.key(KEY)
            # Ahead of time, as the loop does.
            run = run or step.run.lower(*arguments).compile()
            state, metrics = run(*arguments)
        leaves = jax.tree_util.tree_leaves_with_path((state.params, state.batch_stats, metrics))
        np.savez(
            out / f"{parallel}{number}.npz",
            **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves},
        )


def init_directories(number: int, out: Path) -> None:
    """Writes the outcome of `init_run_directory` in four situations."""
    (out / "file").touch()
    outcomes = {}
    for name, config, workdir in (
        ("same", small_config(), out / "shared"),
        ("other seed", small_config(seed=number), out / "shared"),
        ("not shared", small_config(), out / f"own{number}"),
        ("not writable", small_config(), out / "file" / "run"),
    ):
        try:
            init_run_directory(config, workdir)
            outcomes[name] = None
        except ExpectedError as error:
            outcomes[name] = [type(error).__name__, str(error)]
    (out / f"outcomes{number}.json").write_text(json.dumps(outcomes))


if __name__ == "__main__":
    init_directories(int(number), Path(out))
    run_steps(int(number), Path(out))
