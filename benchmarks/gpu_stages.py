"""The measurements of a record of a GPU (or of another device).

    python -m benchmarks.gpu_stages step --preset tiny

prints the figures of one as JSON. `benchmarks.gpu_record` runs each in a process of its own.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rmgl_jax.data.split import Split
from rmgl_jax.evaluation.embedding import embed as embed_images
from rmgl_jax.experiment import presets
from rmgl_jax.models.rmgl import RMGL
from rmgl_jax.training.loop import training_batches
from rmgl_jax.training.step import make_train_step
from rmgl_jax.training.throughput import counted, peak_flops, step_flops

ROOT = Path(__file__).parents[1]
IMAGES = 4  # of each identity


@dataclass(frozen=True)
class Problem:
    """A network, and the sizes that are measured."""

    preset: str
    batch: int
    sweep: tuple[int, ...]
    """Larger batches, some of which may not fit into memory."""
    repeats: int
    """Steps in one measurement."""
    embedded: int
    """Images of a batch that is embedded."""
    dataset: str
    """Dataset of the training at the end."""

    def config(self, batch: int | None = None, **model):
        """Configuration with another batch and other fields of `ModelConfig`."""
        if self.preset == "gpu":
            base = presets.gpu("market1501")
        else:  # Shortened, because a rehearsal's time goes into compiling it.
            base = presets.tiny(self.dataset)
            short = {"paths": ("original",), "last_stage": "res4", "original_abp": "off"}
            base = replace(base, model=replace(base.model, **short))
        train = replace(base.train, num_ids=(batch or self.batch) // IMAGES, num_instances=IMAGES)
        return replace(base, train=train, model=replace(base.model, **model))


PROBLEMS = {
    "gpu": Problem("gpu", 48, (96, 192, 384, 768), 20, 256, "synthetic/full"),
    "tiny": Problem("tiny", 16, (32,), 2, 16, "synthetic/tiny"),
}


def environment(problem):
    """Devices, versions and settings."""
    devices = jax.devices()
    smi = shutil.which("nvidia-smi")
    names = ("jax", "jaxlib", "flax", "optax", "numpy", "torch")
    found = {d.metadata["Name"]: d.version for d in metadata.distributions()}
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "platform": devices[0].platform,
        "memory": (devices[0].memory_stats() or {}).get("bytes_limit"),
        "host": {"cores": os.cpu_count(), "processor": platform.processor()},
        "python": platform.python_version(),
        "versions": {name: found[name] for name in names if name in found},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "nvidia_smi": smi and subprocess.run([smi], capture_output=True, text=True).stdout,
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
        ).stdout.strip(),
    }


def parity(problem):
    """Largest differences of maps and gradients from the CPU's, in float32 at highest precision."""
    config = problem.config(dtype="float32").model
    model = RMGL(config)
    images = np.random.default_rng(0).normal(size=(4, *config.image_size, 3)).astype(np.float32)

    @jax.jit
    def compute(variables, images):
        def loss(params):
            output, _ = model.apply(
                {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
            )
            return jnp.mean(output.logits**2) + jnp.mean(output.features**2)

        maps = model.apply(variables, images, method="feature_maps")
        return {"maps": maps, "gradients": jax.grad(loss)(variables["params"])}

    found = {}
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        variables = jax.jit(model.init)(jax.random.key(0), images)
    with jax.default_matmul_precision("highest"):
        for name, device in (("cpu", cpu), ("device", jax.devices()[0])):
            placed = jax.device_put((variables, images), device)
            found[name] = jax.device_get(compute(*placed))
    result = {}
    for part in ("maps", "gradients"):
        pairs = zip(
            jax.tree.leaves(found["device"][part]), jax.tree.leaves(found["cpu"][part]), strict=True
        )
        largest = max(float(np.abs(b).max()) for b in jax.tree.leaves(found["cpu"][part]))
        result[part] = max(float(np.abs(a - b).max()) for a, b in pairs) / largest
    return {"largest_difference_of_largest_value": result}


class _Step:
    """A compiled training step with its state and one batch on the device."""

    def __init__(self, config) -> None:

        self.config = config
        self.step = make_train_step(config, 100)
        self.state = self.step.replicate(self.step.create())
        size = config.train.num_ids * IMAGES
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (size, *config.model.image_size, 3), dtype=np.uint8)
        labels = np.repeat(np.arange(config.train.num_ids, dtype=np.int32), IMAGES)
        self.batch = self.step.put({"images": images, "labels": labels})
        self.key = jax.random.key(0)
        self.lowered = self.step.run.lower(self.state, self.batch, self.key)
        # MFU leaves out the operations that are recomputed.
        plain = counted(config)
        self.counted = (
            self.lowered
            if plain == config
            else make_train_step(plain, 100).run.lower(self.state, self.batch, self.key)
        )
        start = time.perf_counter()
        self.run = self.lowered.compile()
        self.compile_seconds = time.perf_counter() - start

    def __call__(self, batch=None):
        self.state, metrics = self.run(self.state, batch or self.batch, self.key)
        return metrics["loss"]

    def figures(self, seconds: float) -> dict:
        """Speed, model FLOPs utilization, roofline and memory of a step of this duration."""
        size = self.config.train.num_ids * IMAGES
        device = jax.devices()[0]
        flops = step_flops(self.lowered, self.step.flops_shards)
        of_model = step_flops(self.counted, self.step.flops_shards)
        peak = peak_flops(device.device_kind, self.config.model.dtype)
        moved = (self.run.cost_analysis() or {}).get("bytes accessed")
        memory = self.run.memory_analysis()
        return {
            "batch": size,
            "milliseconds": 1e3 * seconds,
            "images_per_second": size / seconds,
            "flops": flops,
            "mfu": of_model and peak and of_model / seconds / (peak * jax.device_count()),
            "bytes": moved,
            "gigabytes_per_second": moved and moved / seconds / 1e9,
            # XLA counts the bytes of one device.
            "flops_per_byte": flops and moved and flops / (moved * jax.device_count()),
            "temporary_bytes": memory.temp_size_in_bytes,
            "peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
            "compile_seconds": self.compile_seconds,
        }


def _seconds(call: Callable, repeats: int, rounds: int = 3) -> float:
    """Returns the median time of one call, over rounds of `repeats`."""
    jax.block_until_ready(call())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            out = call()
        jax.block_until_ready(out)
        times.append((time.perf_counter() - start) / repeats)
    return statistics.median(times)


def step(problem, parallel="jit", **model):
    """The training step, mapped by `parallel` and with other fields of `ModelConfig`."""
    config = problem.config(**model)
    run = _Step(replace(config, train=replace(config.train, parallel=parallel)))
    return run.figures(_seconds(run, problem.repeats))


def larger(problem, batch):
    """The training step with a larger batch, or that memory is too small for it."""
    try:
        run = _Step(problem.config(batch))
        return run.figures(_seconds(run, problem.repeats))
    except Exception as error:  # XLA has no type of its own for this.
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"batch": batch, "out_of_memory": True}


def torch(problem):
    """The step against PyTorch: torch.compile, automatic mixed precision, channels_last."""
    if find_spec("torch") is None:
        return {"skipped": "PyTorch is not installed."}
    preset, device = ("full", "gpu") if problem.preset == "gpu" else ("tiny", "cpu")
    dtype = problem.config().model.dtype
    command = ["benchmarks.train_step", "--preset", preset, "--batch", str(problem.batch)]
    command += ["--dtype", dtype, "--device", device, "--rounds", "5"]
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )
    if result.returncode:
        raise RuntimeError(result.stderr[-2000:])
    return {"command": " ".join(command), "output": result.stdout}


def embed(problem):
    """Embedding of images that are in memory, each with its mirrored image."""
    model = problem.config().model
    create = jax.jit(lambda key, images: RMGL(model).init(key, images, train=False))
    variables = create(jax.random.key(0), np.zeros((1, *model.image_size, 3), np.float32))
    count = problem.embedded * max(2, problem.repeats)
    images = np.zeros((count, *model.image_size, 3), np.uint8)

    def run():
        return embed_images(model, variables, images, batch_size=problem.embedded)

    seconds = _seconds(run, 1)
    return {"batch": problem.embedded, "images_per_second": count / seconds}


def host_gap(problem):
    """Time of a step with new batches from memory, against the same batch on the device."""
    run = _Step(problem.config())
    config, rng = run.config, np.random.default_rng(0)
    pids = np.repeat(np.arange(8 * config.train.num_ids, dtype=np.int32), IMAGES)
    split = Split(
        images=rng.integers(0, 256, (len(pids), *config.model.image_size, 3), dtype=np.uint8),
        pids=pids,
        camids=np.zeros(len(pids), np.int32),
        names=[str(number) for number in range(len(pids))],
        dataset="random",
        version="1.0.0",
        split="train",
    )
    batches = training_batches(replace(config.train, epochs=10**6), split, 0)
    same = _seconds(run, problem.repeats)
    following = run.step.put(next(batches))

    def fed():
        nonlocal following
        loss = run(following)
        following = run.step.put(next(batches))  # while the device computes
        return loss

    new = _seconds(fed, problem.repeats)
    return {"same_batch_ms": 1e3 * same, "new_batches_ms": 1e3 * new, "gap": new / same - 1}


def stages(problem: Problem) -> dict[str, Callable[[], dict]]:
    """The measurements of a record but the training, by name, in the order of their worth."""
    return {
        "environment": partial(environment, problem),
        "parity": partial(parity, problem),
        "step": partial(step, problem),
        "step_by_pmap": partial(step, problem, "pmap"),
        "torch": partial(torch, problem),
        **{f"batch_{batch}": partial(larger, problem, batch) for batch in problem.sweep},
        "embed": partial(embed, problem),
        "host_gap": partial(host_gap, problem),
        "remat": partial(step, problem, remat=True),
    }


def main() -> None:
    """Runs one stage and prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage")
    parser.add_argument("--preset", default="gpu", choices=PROBLEMS)
    options = parser.parse_args()
    print(json.dumps(stages(PROBLEMS[options.preset])[options.stage]()))


if __name__ == "__main__":
    main()
