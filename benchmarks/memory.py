"""Estimates the largest batch for a device's memory, with and without `model.remat`.

    python -m benchmarks.memory [--dtype bfloat16] [--budgets 12 80] [--batches 16 48]

Compiles the training step of the full RMGL for two batch sizes, without running it. XLA's buffer
assignment (state, batch and temporaries) is extrapolated linearly in the batch size to each memory
budget. It depends on the backend, as CPU programs keep other temporaries than GPU programs, and
excludes the overhead of the allocator.
"""

import argparse
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report
from rmgl_jax.experiment import presets
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.step import make_train_step, state_shapes

GIB = 2**30
IMAGES = 4


def configuration(dtype, remat, batch):
    """Returns the paper's configuration for Market-1501 with another batch size."""
    paper = presets.paper("market1501")
    return replace(
        paper,
        model=replace(paper.model, num_classes=751, dtype=dtype, remat=remat),
        train=replace(paper.train, num_ids=batch // IMAGES, num_instances=IMAGES),
    )


def step_bytes(config):
    """Returns the bytes of the compiled step: arguments, outputs and temporaries."""
    size = config.train.num_ids * config.train.num_instances
    optimizer = make_optimizer(config.optimizer, 100)
    state = state_shapes(config.model, optimizer)
    batch = {
        "images": jax.ShapeDtypeStruct((size, *config.model.image_size, 3), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((size,), jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = make_train_step(config, 100).run
    analysis = step.lower(state, batch, key).compile().memory_analysis()
    # The state is donated, so that the next state reuses its memory.
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return analysis.argument_size_in_bytes + outputs + analysis.temp_size_in_bytes


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--batches", type=int, nargs=2, default=(16, 48))
    parser.add_argument("--budgets", type=float, nargs="+", default=(12, 80))
    add_json_option(parser)
    arguments = parser.parse_args()
    table = Table(
        title=f"full RMGL, {arguments.dtype}, buffer assignment of {jax.default_backend()}"
    )
    for column in ("", "an image", "fixed", *(f"{x:g} GB: batch" for x in arguments.budgets)):
        table.add_column(column, justify="right" if column else "left")
    small, large = arguments.batches
    if small % IMAGES or large % IMAGES or not 0 < small < large:
        parser.error(
            f"--batches must be two different multiples of {IMAGES} (images of an identity), the "
            f"smaller one first, got {small} and {large}."
        )
    figures = {}
    for remat in (False, True):
        needs = [step_bytes(configuration(arguments.dtype, remat, n)) for n in (small, large)]
        an_image = (needs[1] - needs[0]) / (large - small)
        fixed = needs[0] - small * an_image
        largest = [math.floor((x * 1e9 - fixed) / an_image) for x in arguments.budgets]
        figures["remat" if remat else "plain"] = {"bytes an image": an_image, "bytes fixed": fixed}
        table.add_row(
            "remat" if remat else "plain",
            f"{an_image / 2**20:,.0f} MiB",
            f"{fixed / GIB:.2f} GiB",
            *(f"{n - n % IMAGES:,}" for n in largest),
        )
    Console(width=100).print(table)
    write_report("memory", arguments, figures)


if __name__ == "__main__":
    main()
