"""Compiles the training step and the evaluation for TPUs, on a machine without one.

    python -m benchmarks.aot --preset tiny --topology v5e:4x4
    python -m benchmarks.aot --preset gpu --topology v5e:2x2 v5p:2x2x1 --images-per-chip 12 --json

`pip install 'rmgl_jax[aot]'` installs the compiler, libtpu. Nothing is run. Three programs are
compiled for each topology: the training step (by `jit` or `pmap`), `embed_batch` on a batch that is
sharded over the chips, and one tile of distances. `--json` prints one object a line for each
topology.

State, temporaries and FLOPs are those of one chip, by XLA's analysis of the compiled step; a
convolution that XLA pads to the size of the matrix unit counts padded. Collectives are read from
the compiled program: their number, and the bytes of their results on a chip. The causes are
"statistics" (of batch norm), "gradients" (with the metrics and running statistics, which XLA
reduces together with them) and "triplets" (features and labels for mining). `--largest` compiles
the step with twice the images, too, and extrapolates to the memory of a chip.
"""

import argparse
import json
import math
import os
import re
import time
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from typing import NamedTuple

# Before libtpu is loaded: it would ask the cloud for the machine's own TPU, and let one process of
# the machine load it at a time.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from rich import box
from rich.console import Console
from rich.table import Table

from data_prep.errors import InputError, MissingPackageError
from rmgl_jax.devices import AXIS
from rmgl_jax.evaluation.distances import unit_distances
from rmgl_jax.evaluation.embedding import embed_batch, embedding_width
from rmgl_jax.experiment import presets
from rmgl_jax.runtime import report_errors
from rmgl_jax.training.optimizer import make_optimizer
from rmgl_jax.training.step import make_train_step, state_shapes

GIB = 2**30
IMAGES = 4  # of each identity
PRESETS = {"tiny": presets.tiny("synthetic/tiny"), "gpu": presets.gpu("market1501")}
# Memory of a chip in GiB, from Google's documentation.
MEMORY = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
TILE = (1024, 1024)  # queries and gallery images of a tile of distances

_DTYPE_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4}
_DTYPE_BYTES |= {"u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
_COLLECTIVE = re.compile(
    r"%\S+ = (?P<shape>.+?) (?P<kind>all-reduce|all-gather|reduce-scatter|collective-permute|"
    r"all-to-all)(?:-start)?\("
)
_OPERATION = re.compile(r'op_name="([^"]*)"')
_CHAIN = re.compile(r'chain_id="(\d+)"')
_ARRAY = re.compile(r"(pred|bf16|[suf]\d+)\[([\d,]*)\]")


class Collective(NamedTuple):
    """One exchange between chips in a compiled program."""

    kind: str
    bytes: int
    cause: str


def topology_mesh(name: str) -> Mesh:
    """Returns a mesh of the chips of a topology such as "v5e:4x4".

    Raises:
        MissingPackageError: libtpu is not installed.
        InputError: libtpu does not know the topology.
    """
    if find_spec("libtpu") is None:
        raise MissingPackageError(
            "Compiling for a TPU needs libtpu, which pip install 'rmgl_jax[aot]' installs."
        )
    generation, _, sizes = name.partition(":")
    if generation not in MEMORY or not re.fullmatch(r"\d+(x\d+)+", sizes):
        raise InputError(
            f"A topology is one of {', '.join(MEMORY)} and its sizes, such as v5e:4x4 or "
            f"v5p:2x2x1; got {name!r}."
        )
    options = {}
    if math.prod(map(int, sizes.split("x"))) == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    if generation == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip are one device
    try:
        topology = topologies.get_topology_desc(name, "tpu", **options)
    except Exception as error:  # The compiler's own type, which JAX doesn't export.
        raise InputError(f"libtpu does not know the topology {name!r}: {error}") from error
    # In the order of the processes, as `devices.data_mesh` has them.
    devices = sorted(topology.devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,))


def lower_step(config, mesh):
    """Lowers the training step for the devices of a mesh."""
    optimizer = make_optimizer(config.optimizer, 100)
    state = state_shapes(config.model, optimizer)
    size = config.train.num_ids * config.train.num_instances
    rows = (size,) if config.train.parallel == "jit" else (mesh.size, size // mesh.size)
    batch = {
        "images": jax.ShapeDtypeStruct((*rows, *config.model.image_size, 3), jnp.uint8),
        "labels": jax.ShapeDtypeStruct(rows, jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    arguments = _placed(mesh, P(), state), _placed(mesh, P(AXIS), batch), _placed(mesh, P(), key)
    return make_train_step(config, 100, mesh).run.lower(*arguments)


def lower_embedding(config, mesh):
    """Lowers `embed_batch` of a batch of `eval.batch_size` images, sharded over a mesh."""
    optimizer = make_optimizer(config.optimizer, 100)
    state = state_shapes(config.model, optimizer)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    size = -(-config.eval.batch_size // mesh.size) * mesh.size
    images = jax.ShapeDtypeStruct((size, *config.model.image_size, 3), jnp.uint8)
    return embed_batch.lower(
        config.model, _placed(mesh, P(), variables), _placed(mesh, P(AXIS), images)
    )


def lower_distances(config, mesh):
    """Lowers a tile of distances for the first chip of a mesh."""
    chip = Mesh(mesh.devices[:1], (AXIS,))
    width = embedding_width(config.model)
    query, gallery = (jax.ShapeDtypeStruct((rows, width), jnp.float32) for rows in TILE)
    return unit_distances.lower(_placed(chip, P(), query), _placed(chip, P(), gallery))


def _placed(mesh, spec, tree):
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def collectives(text: str) -> list[Collective]:
    """Lists the collectives of a compiled program, given its text."""
    found, chains = [], set()
    for line in text.splitlines():
        match = _COLLECTIVE.search(line)
        if match is None:
            continue
        name = _OPERATION.search(line)
        collective = Collective(
            match["kind"], _shape_bytes(match["shape"]), _cause(name[1] if name else "")
        )
        # One that overlaps with other operations runs in pieces, each of which is printed.
        chain = _CHAIN.search(line)
        if chain is not None:
            if (chain[1], collective) in chains:
                continue
            chains.add((chain[1], collective))
        found.append(collective)
    return found


def _shape_bytes(shape: str) -> int:
    return sum(
        _DTYPE_BYTES[dtype] * math.prod(int(size) for size in sizes.split(",") if size)
        for dtype, sizes in _ARRAY.findall(shape)
    )


def _cause(operation: str) -> str:
    """Returns the reason for a collective, from the name of the operation it stems from.

    XLA drops the name of the transposed gather of features; nothing else is without one.
    """
    if re.search(r"/bn\w*/", operation):
        return "statistics"
    if re.search(r"/psum$|/pmean$", operation) and "jvp" not in operation:
        return "gradients"
    return "triplets"


def summarize(found: list[Collective]) -> dict:
    """Returns number and bytes of collectives, in total and by cause."""
    causes = sorted({collective.cause for collective in found})
    groups = {cause: [c for c in found if c.cause == cause] for cause in causes}
    return {
        "count": len(found),
        "bytes": sum(collective.bytes for collective in found),
        "below_64_kb": sum(collective.bytes < 2**16 for collective in found),
        "by_cause": {
            cause: {"count": len(group), "bytes": sum(c.bytes for c in group)}
            for cause, group in groups.items()
        },
    }


def measure(
    preset: str,
    topology: str,
    parallel: str = "jit",
    images_per_chip: int | None = None,
    largest: bool = False,
    overrides: dict | None = None,
) -> dict:
    """Compiles the three programs of a preset for a topology and returns their figures.

    Args:
        preset: name of an entry of `PRESETS`.
        topology: such as "v5e:4x4".
        parallel: "jit" or "pmap".
        images_per_chip: images of a batch on one chip; None divides the preset's batch.
        largest: compile twice the batch, too, and extrapolate the largest one.
        overrides: other values of fields of `ModelConfig`.
    """
    mesh = topology_mesh(topology)
    config = PRESETS[preset]
    size = config.train.num_ids * config.train.num_instances
    if images_per_chip is not None:
        size = images_per_chip * mesh.size
    config = replace(config, model=replace(config.model, **(overrides or {})))
    config = with_batch(config, size, parallel)
    compiled, seconds = _compile(lower_step(config, mesh))
    memory = compiled.memory_analysis()
    text = compiled.as_text()
    result = {
        "preset": preset,
        "topology": topology,
        "chips": mesh.size,
        "hosts": len({device.process_index for device in mesh.devices.flat}),
        "parallel": parallel,
        "images": size,
        "overrides": overrides or {},
        "jax": jax.__version__,
        "libtpu": metadata.version("libtpu"),
        "state_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "program_bytes": memory.generated_code_size_in_bytes,
        "flops": _flops(compiled),
        "parameter_bytes": _parameter_bytes(config),
        "collectives": summarize(collectives(text)),
        "compile_seconds": seconds,
    }
    if largest:
        twice, _ = _compile(lower_step(with_batch(config, 2 * size, parallel), mesh))
        images = size / mesh.size
        per_image = (_bytes(twice) - _bytes(compiled)) / images
        fixed = _bytes(compiled) - images * per_image
        budget = MEMORY[topology.partition(":")[0]] * GIB
        result["bytes_per_image"] = per_image
        result["largest_images_per_chip"] = math.floor((budget - fixed) / per_image)
    for name, lower in (("embed_batch", lower_embedding), ("distances", lower_distances)):
        compiled, seconds = _compile(lower(config, mesh))
        memory = compiled.memory_analysis()
        result[name] = {
            "argument_bytes": memory.argument_size_in_bytes,
            "temporary_bytes": memory.temp_size_in_bytes,
            "flops": _flops(compiled),
            "collectives": summarize(collectives(compiled.as_text())),
            "compile_seconds": seconds,
        }
    return result


def with_batch(config, size, parallel):
    """Returns the configuration with another batch size, of `IMAGES` images of each identity."""
    if size % IMAGES:
        raise InputError(f"A batch of {size} images does not consist of {IMAGES} per identity.")
    train = replace(config.train, num_ids=size // IMAGES, num_instances=IMAGES, parallel=parallel)
    return replace(config, train=train)


def _compile(lowered):
    """Returns the compiled program and the seconds that this took."""
    start = time.perf_counter()
    return lowered.compile(), time.perf_counter() - start


def _bytes(compiled) -> int:
    """Returns the memory of a chip that a compiled step takes; outputs reuse the donated state."""
    memory = compiled.memory_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + outputs + memory.temp_size_in_bytes


def _flops(compiled) -> float | None:
    return (compiled.cost_analysis() or {}).get("flops")


def _parameter_bytes(config) -> int:
    optimizer = make_optimizer(config.optimizer, 100)
    state = state_shapes(config.model, optimizer)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))


def report(console: Console, results: list[dict]) -> None:
    """Prints one row for each topology."""
    table = Table(title="one chip, compiled ahead of time", box=box.SIMPLE_HEAD)
    columns = (
        "images",
        "state",
        "temporaries",
        "GFLOP/image",
        "collectives",
        "MB",
        "of batch norm",
    )
    table.add_column("")
    for name in (*columns, "largest batch", "compile s"):
        table.add_column(name, justify="right")
    for found in results:
        chip, exchanged = found["images"] / found["chips"], found["collectives"]
        statistics = exchanged["by_cause"].get("statistics", {"count": 0})
        table.add_row(
            f"{found['preset']}, {found['topology']}, {found['parallel']}",
            f"{chip:g}",
            f"{found['state_bytes'] / 1e9:.2f} GB",
            f"{found['temporary_bytes'] / 1e9:.2f} GB",
            f"{found['flops'] / chip / 1e9:,.1f}",
            f"{exchanged['count']}",
            f"{exchanged['bytes'] / 1e6:,.1f}",
            f"{statistics['count']}",
            f"{found.get('largest_images_per_chip', '')}",
            f"{found['compile_seconds']:.0f}",
        )
    console.print(table)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny", choices=PRESETS)
    parser.add_argument("--topology", nargs="+", default=["v5e:4x4"], help="such as v5p:2x2x1")
    parser.add_argument("--parallel", nargs="+", default=["jit"], choices=("jit", "pmap"))
    parser.add_argument("--images-per-chip", type=int, help="by default the preset's batch")
    parser.add_argument("--largest", action="store_true", help="extrapolate the largest batch")
    parser.add_argument("--remat", action="store_true", help="recompute the inside of blocks")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # what runs here, such as creating a key
    overrides = {"remat": True} if arguments.remat else {}
    results = []
    console = Console(width=120)
    with report_errors(console):
        for topology in arguments.topology:
            for parallel in arguments.parallel:
                found = measure(
                    arguments.preset,
                    topology,
                    parallel,
                    arguments.images_per_chip,
                    arguments.largest,
                    overrides,
                )
                results.append(found)
                if arguments.json:
                    print(json.dumps(found), flush=True)
    if not arguments.json:
        report(console, results)


if __name__ == "__main__":
    main()
