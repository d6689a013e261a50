"""One of two processes of `test_two_processes_equal_one`: `ADDRESS NUMBER OUT`."""

import sys
from pathlib import Path

import jax

if __name__ == "__main__":
    address, number, out = sys.argv[1:]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, num_processes=2, process_id=int(number))

import numpy as np

from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.step import create_state, make_train_step
from tests.tiny import tiny_batch, tiny_config


def main(number: int, out: Path) -> None:
    """Three steps by jit and by pmap, each process feeding its half of every batch."""
    assert jax.process_count() == 2
    assert jax.device_count() == 4
    for parallel in ("jit", "pmap"):
        config = tiny_config(parallel=parallel)
        step = make_train_step(config, steps_per_epoch=10)
        state = create_state(config.model, make_optimizer(config.optimizer, 10), 0)
        state = step.replicate(state)
        run = None
        for index in range(3):
            half = {name: np.split(rows, 2)[number] for name, rows in tiny_batch(index).items()}
            arguments = state, step.put(half), jax.random.key(7)
            # Ahead of time, as the loop does.
            run = run or step.run.lower(*arguments).compile()
            state, metrics = run(*arguments)
        leaves = jax.tree_util.tree_leaves_with_path((state.params, state.batch_stats, metrics))
        np.savez(
            out / f"{parallel}{number}.npz",
            **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves},
        )


if __name__ == "__main__":
    main(int(number), Path(out))
