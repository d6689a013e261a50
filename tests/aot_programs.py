"""Prints what the compiler for TPUs makes of the tiny preset, in a process of its own.

libtpu prints to standard error and keeps state of its own, so it is not loaded into the tests'
process.
"""

import json
import re

import jax

from benchmarks.aot import IMAGES, PRESETS, lower_step, measure, topology_mesh, with_batch
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.step import state_shapes


def operations(topology: str, parallel: str) -> list[str]:
    """Names of the operations of the step with one identity on each chip, in order."""
    mesh = topology_mesh(topology)
    config = with_batch(PRESETS["tiny"], IMAGES * mesh.size, parallel)
    return re.findall(r"stablehlo\.(\w+)", lower_step(config, mesh).as_text())


def main():
    jax.config.update("jax_platforms", "cpu")
    config = PRESETS["tiny"]
    state = state_shapes(config.model, make_optimizer(config.optimizer, 100))
    sizes = {
        name: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for name, tree in (("state", state), ("parameters", state.params))
    }
    programs = {
        "jit4": operations("v5e:2x2", "jit"),
        "jit16": operations("v5e:4x4", "jit"),
        "pmap4": operations("v5e:2x2", "pmap"),
    }
    print(json.dumps({"found": measure("tiny", "v5e:4x4"), "sizes": sizes, "programs": programs}))


if __name__ == "__main__":
    main()
