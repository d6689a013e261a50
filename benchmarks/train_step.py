"""Measures the training step and the forward pass against the same network in plain PyTorch.

    python -m benchmarks.train_step --preset full --batch 8 --rounds 5        # on the CPU
    python -m benchmarks.train_step --preset tiny --rounds 15
    python -m benchmarks.train_step --preset full --batch 48 --dtype bfloat16 --device gpu

`full` is RMGL (ResNet-50, 384x128, 751 identities), `tiny` the network of `presets.small`. The step
is the loss of Eq. 4, its gradient and the update by SGD, from uint8 images without augmentation;
the forward pass gives embeddings. PyTorch runs in channels_last, on a GPU also compiled, and with
autocast if `--dtype` is bfloat16. Every network runs in its own process, so that its peak memory is
separate, and they take turns; ratios are of medians. On a GPU the step is measured with `pmap`
too. JAX uses all devices that it sees, so make only one visible.

Operations are those of plain convolutions and matrix products, counted from the shapes of the
layers. A step has three times as many as a forward pass, without the gradient by the images; other
operations, and savings of an algorithm, do not count. Bytes are XLA's count for the compiled step.
Compile times include the compilation cache, if JAX_COMPILATION_CACHE_DIR is set.
"""

import argparse
import contextlib
import math
import multiprocessing
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.report import add_json_option, write_report

IMAGES = 4  # of each identity
KINDS = ("forward", "step")
PLATFORMS = {"cpu": "cpu", "gpu": "cuda"}


@dataclass(frozen=True)
class Problem:
    """The network and the device that are measured."""

    preset: str
    batch: int
    dtype: str
    device: str

    @property
    def config(self):
        """Configuration of the experiment, without augmentation."""
        from rmgl_jax.config import AugmentConfig, RandomShiftingConfig
        from rmgl_jax.experiment.presets import paper, small

        base = paper("benchmark") if self.preset == "full" else small("benchmark", 60)
        return replace(
            base,
            model=replace(base.model, dtype=self.dtype),
            augment=AugmentConfig(flip_probability=0.0, shifting=RandomShiftingConfig()),
            train=replace(base.train, num_ids=self.batch // IMAGES, num_instances=IMAGES),
        )

    def data(self):
        """Generates images and labels, the same for all methods."""
        rng = np.random.default_rng(0)
        size = (self.batch, *self.config.model.image_size, 3)
        labels = np.repeat(np.arange(self.batch // IMAGES), IMAGES).astype(np.int32)
        return rng.integers(0, 256, size, dtype=np.uint8), labels


def forward_operations(model, variables, images):
    """Counts the floating-point operations of convolutions and matrix products.

    Returns the total, and the share of the stem's convolution, whose gradient by the input is never
    computed.
    """
    import jax
    from flax import linen as nn

    from rmgl_jax.models.convolution import Conv
    from rmgl_jax.models.heads import Classifier, Reduction

    found = {}

    def count(function, args, kwargs, context):
        out = function(*args, **kwargs)
        if isinstance(context.module, Conv | Reduction | Classifier):
            kernel = context.module.variables["params"]["kernel"].shape
            fan_in = math.prod(kernel[:-1] if isinstance(context.module, Conv) else kernel[-2:-1])
            path = context.module.path
            found[path] = found.get(path, 0) + 2 * out.size * fan_in
        return out

    with nn.intercept_methods(count):
        jax.eval_shape(partial(model.apply, train=False), variables, images)
    (stem,) = [value for path, value in found.items() if "stem" in path]
    return sum(found.values()), stem


def make_step(problem, parallel="jit"):
    """Sets up the training step; returns it with its first state, a batch and a key.

    `step.replicate` makes the state an argument of `step.run`.
    """
    import jax

    from rmgl_jax.training.optimizer import make_optimizer
    from rmgl_jax.training.step import create_state, make_train_step

    config = problem.config
    config = replace(config, train=replace(config.train, parallel=parallel))
    images, labels = problem.data()
    step = make_train_step(config, 100)
    state = create_state(config.model, make_optimizer(config.optimizer, 100), 0)
    return step, state, step.put({"images": images, "labels": labels}), jax.random.key(0)


def jax_network(problem, parallel):
    """Sets up this project's network: functions to run by name, and facts."""
    from rmgl_jax.cpu import keep_freed_memory

    keep_freed_memory()
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_platforms", PLATFORMS[problem.device])
    from rmgl_jax.data.normalization import normalize
    from rmgl_jax.evaluation.embedding import inference_variables
    from rmgl_jax.models.rmgl import RMGL

    config = problem.config
    model = RMGL(config.model)
    images, _ = problem.data()
    step, state, batch, key = make_step(problem, parallel)
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    variables = jax.tree.map(jnp.copy, variables)
    state = step.replicate(state)
    pixels = normalize(images)
    operations, stem = forward_operations(model, variables, pixels)
    facts = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "operations": {"forward": operations, "step": 3 * operations - stem},
        "device": jax.devices()[0].device_kind,
    }

    # The network that embeds images, with batch norm folded into the kernels.
    variables = inference_variables(config.model, variables)
    network = RMGL(config.model, folded=True)
    forward = jax.jit(lambda v, x: network.apply(v, x, method="part_features"))
    start = time.perf_counter()
    forward = forward.lower(variables, pixels).compile()
    forward_compile = time.perf_counter() - start
    lowered = step.run.lower(state, batch, key)
    start = time.perf_counter()
    compiled = lowered.compile()
    facts["compile"] = {"forward": forward_compile, "step": time.perf_counter() - start}
    cost = compiled.cost_analysis() or {}
    facts["bytes"] = cost.get("bytes accessed")
    facts["xla_operations"] = (lowered.cost_analysis() or {}).get("flops")

    def run_step():
        nonlocal state
        state, metrics = compiled(state, batch, key)
        return metrics["loss"]

    def peak():
        stats = jax.devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] if stats else process_peak()

    runs = {"forward": lambda: forward(variables, pixels), "step": run_step}
    return runs, facts, jax.block_until_ready, peak


def ceilings(problem):
    """Sets up the limits of the machine: a large matrix product, and copying a long array."""
    from rmgl_jax.cpu import keep_freed_memory

    keep_freed_memory()
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_platforms", PLATFORMS[problem.device])
    size, length = (2048, 2**25) if problem.device == "cpu" else (8192, 2**28)
    square, long = jnp.ones((size, size), problem.dtype), jnp.ones(length, jnp.float32)
    runs = {
        "product": partial(jax.jit(jnp.matmul), square, square),
        "copy": partial(jax.jit(lambda x: x + 1), long),
    }
    facts = {"product": 2 * size**3, "copy": 2 * long.nbytes, "compile": {}}
    return runs, facts, jax.block_until_ready, process_peak


def torch_network(problem, compiled):
    """Sets up the same network in PyTorch: functions to run by name, and facts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.torch_rmgl import TorchRMGL, sgd, total_loss

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    config, device = problem.config, "cuda" if problem.device == "gpu" else "cpu"
    model = config.model
    network = TorchRMGL(
        model.granularities, model.depth, model.width, model.embed_dim, model.num_classes
    )
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = sgd(network, config.optimizer)
    images, labels = (torch.from_numpy(array).to(device) for array in problem.data())
    labels = labels.long()
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    scale, shift = (1 / (255 * std)).to(device), (mean / std).to(device)
    half = problem.dtype == "bfloat16"
    autocast = torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext()

    def normalized():  # [B, H, W, 3] in memory, channels_last to PyTorch
        return (images * scale - shift).permute(0, 3, 1, 2)

    call = torch.compile(network) if compiled else network
    pixels = normalized()

    def forward():
        network.eval()
        with torch.inference_mode(), autocast:
            return call(pixels)[0]

    def step():
        network.train()
        with autocast:
            features, logits = call(normalized())
        loss = total_loss(features, logits, labels, model.granularities, config.loss.margin)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    def wait(_):
        if device == "cuda":
            torch.cuda.synchronize()

    def peak():
        return torch.cuda.max_memory_allocated() if device == "cuda" else process_peak()

    facts = {"parameters": sum(p.numel() for p in network.parameters()), "compile": {}}
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(pixels[:1])
    facts["operations"] = {"forward": counter.get_total_flops() * problem.batch}
    return {"forward": forward, "step": step}, facts, wait, peak


METHODS = {
    "jit": partial(jax_network, parallel="jit"),
    "pmap": partial(jax_network, parallel="pmap"),
    "torch": partial(torch_network, compiled=False),
    "torch.compile": partial(torch_network, compiled=True),
}
CEILINGS = "machine"


def process_peak():
    """Returns the peak memory of this process in bytes since `reset_peak`; Linux only."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def reset_peak():
    """Resets the peak memory, so that compilation does not count."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def serve(connection, method, problem):
    """Runs one method in its process: sends its facts, then the times that are requested."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others use the GPU, too
    make = ceilings if method == CEILINGS else METHODS[method]
    runs, facts, wait, peak = make(problem)
    for kind in runs:  # compiles, tunes, allocates
        start = time.perf_counter()
        wait(runs[kind]())
        facts["compile"].setdefault(kind, time.perf_counter() - start)
        wait(runs[kind]())
    reset_peak()
    connection.send(facts)
    for kind, repeats in iter(connection.recv, None):
        if kind == "peak":
            connection.send(peak())
            continue
        start = time.perf_counter()
        for _ in range(repeats):
            out = runs[kind]()
        wait(out)
        connection.send((time.perf_counter() - start) / repeats)


def measure(console, problem, methods, rounds, repeats):
    """Measures all methods in turn; returns facts, and seconds by (method, kind).

    A method that fails before its first measurement is left out of both. `jit` must not fail.
    """
    context = multiprocessing.get_context("spawn")
    pipes, facts, samples = {}, {}, {}
    for method in (CEILINGS, *methods):
        with console.status(f"{method}: compiling"):
            pipes[method], far = context.Pipe()
            context.Process(target=serve, args=(far, method, problem), daemon=True).start()
            far.close()
            try:
                facts[method] = pipes[method].recv()
            except EOFError:
                if method in (CEILINGS, "jit"):
                    raise
                del pipes[method]
                console.print(f"{method} failed; its error is above. The others go on.")
    methods = [method for method in methods if method in facts]

    def ask(method, kind, repeats=repeats):
        pipes[method].send((kind, repeats))
        return pipes[method].recv()

    for number in range(rounds):
        for kind in KINDS:
            for method in methods:
                with console.status(f"round {number + 1} of {rounds}: {method}, {kind}"):
                    samples.setdefault((method, kind), []).append(ask(method, kind))
        for kind in ("product", "copy"):
            with console.status(kind):
                samples.setdefault(kind, []).append(ask(CEILINGS, kind, 5 * repeats))
    for method, pipe in pipes.items():
        facts[method]["peak"] = ask(method, "peak")
        pipe.send(None)
    return facts, samples


def report(console, problem, facts, samples, methods):
    """Prints operations, their time at the rate of a matrix product, and all measurements."""
    from rmgl_jax.training.throughput import peak_flops

    ours = facts["jit"]
    operations, moved = ours["operations"], ours["bytes"]
    product, copy = (
        facts[CEILINGS][kind] / np.median(samples[kind]) for kind in ("product", "copy")
    )
    forward, step = (operations[kind] / 1e9 for kind in KINDS)
    console.print(
        f"{ours['parameters']:,} parameters; operations of a forward pass {forward:,.1f} G "
        f"({forward / problem.batch:.2f} an image), of a step {step:,.1f} G "
        f"({ours['xla_operations'] / 1e9:,.1f} by XLA's count of all operations)"
    )
    ideal = {kind: operations[kind] / product for kind in KINDS}
    console.print(
        f"{ours['device']}: a large matrix product runs at {product / 1e9:,.0f} GFLOP/s, at which "
        f"they would take {1e3 * ideal['forward']:,.1f} and {1e3 * ideal['step']:,.1f} ms"
    )
    if moved:
        console.print(
            f"a step moves {moved / 1e9:,.2f} GB by XLA's count, which a copy's "
            f"{copy / 1e9:,.1f} GB/s does in {1e3 * moved / copy:,.1f} ms; "
            f"{operations['step'] / moved:,.0f} operations a byte, "
            f"the machine {product / copy:,.0f}"
        )
    table = Table(
        title=f"{problem.preset}, batch {problem.batch}, {problem.dtype}", box=box.SIMPLE_HEAD
    )
    table.add_column("", no_wrap=True)
    columns = ("ms", "best ms", "images/s", "GFLOP/s", "of product", "MFU", "compile s", "peak GiB")
    for name in (*columns, *(f"{other} / it" for other in methods[1:])):
        table.add_column(name, justify="right", no_wrap=True)
    known = peak_flops(ours["device"], problem.dtype)
    for kind in KINDS:
        for method in methods:
            seconds = np.median(samples[method, kind])
            rate = operations[kind] / seconds
            ratios = [np.median(samples[other, kind]) / seconds for other in methods[1:]]
            table.add_row(
                f"{kind}, {method}",
                f"{1e3 * seconds:,.1f}",
                f"{1e3 * min(samples[method, kind]):,.1f}",
                f"{problem.batch / seconds:,.1f}",
                f"{rate / 1e9:,.0f}",
                f"{rate / product:.0%}",
                f"{rate / known:.1%}" if known else "",
                f"{facts[method]['compile'][kind]:.1f}",
                f"{facts[method]['peak'] / 2**30:.2f}" if kind == "step" else "",
                *(f"{ratio:.2f}" for ratio in ratios),
            )
        table.add_section()
    console.print(table)


def check(facts):
    """Exits unless all methods have the same number of parameters and operations."""
    ours = facts["jit"]
    for method, other in facts.items():
        if method == CEILINGS:
            continue
        if other["parameters"] != ours["parameters"] or not math.isclose(
            other["operations"]["forward"], ours["operations"]["forward"], rel_tol=1e-3
        ):
            raise SystemExit(f"{method} differs from jit: {other} instead of {ours}.")


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--batch", type=int, help="images; by default 64 for tiny, 8 for full")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, help="calls per sample; 1 on a CPU, 20 elsewhere")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="methods to compare with jit")
    add_json_option(parser)
    arguments = parser.parse_args()
    batch = arguments.batch or {"tiny": 64, "full": 8}[arguments.preset]
    if batch % IMAGES:
        parser.error(
            f"--batch must be a multiple of {IMAGES} (images of an identity), got {batch}."
        )
    accelerated = arguments.device != "cpu"
    methods = arguments.methods or (list(METHODS) if accelerated else ["jit", "torch"])
    methods = ["jit", *(method for method in methods if method != "jit")]
    if find_spec("torch") is None and any(method.startswith("torch") for method in methods):
        print("PyTorch is not installed: nothing is compared with it.")
        methods = [method for method in methods if not method.startswith("torch")]
    problem = Problem(arguments.preset, batch, arguments.dtype, arguments.device)
    console = Console(width=150)
    repeats = arguments.repeats or (20 if accelerated else 1)
    facts, samples = measure(console, problem, methods, arguments.rounds, repeats)
    methods = [method for method in methods if method in facts]
    check(facts)
    report(console, problem, facts, samples, methods)
    figures = {
        f"{kind}, {method}": {
            "ms": 1e3 * float(np.median(samples[method, kind])),
            "best ms": 1e3 * min(samples[method, kind]),
            "compile s": facts[method]["compile"][kind],
        }
        for kind in KINDS
        for method in methods
    }
    write_report("train_step", arguments, figures)


if __name__ == "__main__":
    main()
