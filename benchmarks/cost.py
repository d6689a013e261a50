"""Computes the costs of RMGL and of other methods: parameters, operations, memory and latency.

    python -m benchmarks.cost --output cost.json
    python -m benchmarks.cost --output cost.json --methods PCB --measures memory

All methods are ResNet-50 at 384x128 with Market-1501's 751 identities, in float32.

Parameters are those of training, and those without the classifiers, which an embedding does not
need. Operations are those of convolutions and matrix products in the forward pass of one image,
two for each multiply-add, counted from the shapes of the layers. Memory is that of the compiled
training step on the paper's batch of 12 x 4 images, by XLA's buffer assignment for this backend,
without the kernels for CPUs: state, batch and temporaries. Nothing of it is run. Latency is the
median of embedding one image, without its mirrored image; the methods take turns.

An existing file is updated, so that methods can be measured one after another. The table is printed
as Markdown, with what the paper says.
"""

import argparse
import json
import math
import os
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from benchmarks.memory import step_bytes
from benchmarks.train_step import forward_operations
from data_prep.files import write_text
from rmgl_jax.evaluation.embedding import embed_batch, embedding_width
from rmgl_jax.experiment import presets
from rmgl_jax.experiment.table import Grid, to_markdown
from rmgl_jax.models.rmgl import RMGL
from rmgl_jax.training.run_info import run_info

METHODS = {
    "RMGL": presets.rmgl,
    "baseline, 2+3-stripe": partial(presets.components, granularities=(2, 3)),
    "baseline, 2-stripe": partial(presets.components, granularities=(2,)),
    "MGN in this network": presets.mgn,
    "MGN as published": getattr(presets, "mgn_as_published", None),
    "PCB in this network": presets.pcb,
}
MEASURES = ("counts", "memory", "latency")
OPEN = "open"
PAPER = (
    'The paper says that RMGL is more comprehensive "without larger model storage costs", that its '
    'dual paths make a "lighter model as 2-branch MGN" with memory and computation "equal to the '
    'burden as 4-branch MGN", and that inference takes 20 ms on average. It does not say if that '
    "includes the mirrored image, nor the size of the batch; it used two Titan Xp."
)


def configuration(method):
    """Configuration of a method, with the paper's batch for all."""
    paper = presets.paper("market1501")
    return replace(METHODS[method](paper), train=paper.train)


def variable_shapes(model):
    """Shapes of a network's variables."""
    images = jax.ShapeDtypeStruct((1, *model.image_size, 3), jnp.float32)
    return jax.eval_shape(RMGL(model).init, jax.random.key(0), images)


def count(method):
    """Counts parameters, operations and the embedding's width, from shapes alone."""
    model = configuration(method).model
    variables = variable_shapes(model)
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in variables["params"].items()
    }
    images = jax.ShapeDtypeStruct((1, *model.image_size, 3), jnp.float32)
    operations, _ = forward_operations(RMGL(model), variables, images)
    return {
        "parameters": sum(sizes.values()),
        "parameters_of_embedding": sizes["backbone"] + sizes["reduction"],
        "operations": operations,
        "embedding_width": embedding_width(model),
    }


def memory(method):
    """Compiles the training step with XLA's plain operations, and returns its memory."""
    before = os.environ.get("RMGL_CPU_KERNELS")
    os.environ["RMGL_CPU_KERNELS"] = "0"
    try:
        return {"step_bytes": step_bytes(configuration(method))}
    finally:
        if before is None:
            del os.environ["RMGL_CPU_KERNELS"]
        else:
            os.environ["RMGL_CPU_KERNELS"] = before


def _value(random, path, leaf):
    """An array with the values of an untrained network, made without compiling anything."""
    if path[-1].key == "kernel":
        deviation = (2 / math.prod(leaf.shape[-4:-1])) ** 0.5
        return deviation * random.standard_normal(leaf.shape, np.float32)
    return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)


def latencies(methods, rounds):
    """Median seconds of embedding one image, by method; they take turns."""
    runs = {}
    for method in methods:
        model = configuration(method).model
        random = np.random.default_rng(0)
        variables = jax.tree.map_with_path(partial(_value, random), variable_shapes(model))
        image = random.integers(0, 256, (1, *model.image_size, 3), np.uint8)
        runs[method] = partial(
            embed_batch, model, jax.device_put(variables), jnp.asarray(image), flip=False
        )
        runs[method]().block_until_ready()
    seconds = {method: [] for method in methods}
    for _ in range(rounds):
        for method, run in runs.items():
            start = time.perf_counter()
            run().block_until_ready()
            seconds[method].append(time.perf_counter() - start)
    return {
        method: {"latency_seconds": statistics.median(values), "rounds": rounds}
        for method, values in seconds.items()
    }


def grid(found):
    """The table of all methods; what was not measured is open."""

    def cell(method, name, show):
        value = found.get(method, {}).get(name)
        return OPEN if value is None else show(value)

    columns = {
        "parameters, M": ("parameters", lambda value: f"{value / 1e6:.1f}"),
        "without classifiers, M": ("parameters_of_embedding", lambda value: f"{value / 1e6:.1f}"),
        "forward, GFLOP": ("operations", lambda value: f"{value / 1e9:.1f}"),
        "embedding": ("embedding_width", lambda value: f"{value:,}"),
        "step, GiB": ("step_bytes", lambda value: f"{value / 2**30:.1f}"),
        "latency, ms": ("latency_seconds", lambda value: f"{1000 * value:.0f}"),
    }
    rows = tuple(
        (method, *(cell(method, name, show) for name, show in columns.values()))
        for method in METHODS
    )
    return Grid("Costs", ("", *columns), rows)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON file, updated if it exists"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--measures", nargs="*", choices=MEASURES, default=MEASURES)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    found = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    methods = [name for name in arguments.methods if METHODS[name] is not None]
    facts = run_info()

    def add(method, measures):
        found.setdefault(method, {}).update(measures)
        found[method].setdefault("measured", {}).update(dict.fromkeys(measures, facts))
        write_text(arguments.output, json.dumps(found, indent=2) + "\n")

    if "counts" in arguments.measures:
        for method in methods:
            add(method, count(method))
    if "memory" in arguments.measures:
        for method in methods:
            add(method, memory(method))
    if "latency" in arguments.measures:
        for method, measures in latencies(methods, arguments.rounds).items():
            add(method, measures)
    console = Console(highlight=False)
    console.print(f"{to_markdown(grid(found))}\n\n{PAPER}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
