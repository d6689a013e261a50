"""Records the performance of a GPU (or of another device) within a given time.

    make gpu                                                    # 25 minutes, into runs/gpu_record
    python -m benchmarks.gpu_record --minutes 25 --folder runs/gpu_record
    python -m benchmarks.gpu_record --preset tiny --minutes 5   # a rehearsal, also on the CPU
    python -m benchmarks.gpu_record --folder runs/gpu_record --table

The stages run in the order of their worth, each in its own process, and each writes one JSON file
into the folder. A stage that fails or exceeds its time leaves a file with the reason, and the next
one starts. Stages that have been measured are not repeated, so the same command continues a record;
those of a rehearsal are no measurement of another preset. The last stage trains on rendered images
from random weights, with checkpoints, for the time that is left.

`--table` prints the tables of docs/performance.md from the files.
"""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = 4  # of each identity
SAVING = 120  # seconds for the training to save its state
SAVED = 143  # exit status of a training that SIGTERM has stopped, and that has saved its state


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
        from rmgl_jax.experiment import presets

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
    import jax

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
    import jax
    import jax.numpy as jnp
    import numpy as np

    from rmgl_jax.models.rmgl import RMGL

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
        import jax
        import numpy as np

        from rmgl_jax.training.step import make_train_step
        from rmgl_jax.training.throughput import counted

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
        import jax

        from rmgl_jax.training.throughput import peak_flops, step_flops

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
    import jax

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
    import jax
    import numpy as np

    from rmgl_jax.evaluation.embedding import embed as embed_images
    from rmgl_jax.models.rmgl import RMGL

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
    import numpy as np

    from rmgl_jax.data.split import Split
    from rmgl_jax.training.loop import training_batches

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


TRAINING = "training"


@contextmanager
def started(command: list[str], **options) -> Iterator[subprocess.Popen]:
    """Starts a command; at the end none of the processes that it has started is left."""
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def run_stage(name: str, problem: Problem, seconds: float) -> dict:
    """Runs a stage in a process of its own; returns its result, or the reason for having none."""
    command = [sys.executable, "-m", "benchmarks.gpu_record", "--stage", name]
    # Compilation is measured, too.
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    with started(
        [*command, "--preset", problem.preset], stderr=subprocess.PIPE, env=env
    ) as process:
        try:
            output, errors = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            return {"error": f"stopped after {seconds:.0f} s"}
    if process.returncode:
        return {"error": errors[-2000:]}
    return json.loads(output.splitlines()[-1])


def training_command(problem: Problem, folder: Path) -> list[str]:
    """The arguments of `rmgl` for the training at the end."""
    preset = "paper" if problem.preset == "gpu" else "tiny"
    command = ["train", "--dataset", problem.dataset, "--preset", preset, "--from-scratch"]
    command += ["--model.dtype", problem.config().model.dtype]
    return [*command, "--workdir", str(folder / preset), "--data-dir", str(folder / "data")]


def run_training(problem: Problem, folder: Path, seconds: float) -> dict:
    """Trains for some time; SIGTERM then makes the run save its state."""
    command = ["-m", "rmgl_jax", *training_command(problem, folder)]
    with started([sys.executable, *command], stderr=subprocess.STDOUT) as process:
        # Read all the while: a full pipe would stop the training.
        try:
            output, _ = process.communicate(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            process.terminate()
            try:
                output, _ = process.communicate(timeout=SAVING)
            except subprocess.TimeoutExpired:
                return {"error": f"the training did not end within {SAVING} s of SIGTERM"}
    found = {"command": " ".join(command), "status": process.returncode, "output": output[-4000:]}
    if process.returncode not in (0, SAVED):
        found["error"] = f"the training ended with status {process.returncode}: {output[-2000:]}"
    return found


def record(
    folder: Path,
    problem: Problem,
    minutes: float,
    run: Callable[[str, Problem, float], dict] = run_stage,
    train: Callable[[Problem, Path, float], dict] = run_training,
) -> None:
    """Runs the stages that this problem has no measurement of yet, until the time is over.

    Args:
        folder: gets one JSON file for each stage.
        problem: what is measured.
        minutes: time for all stages; one stage takes half of what is left at most.
        run: runs a stage, given its name, the problem and its seconds.
        train: runs the training, given the problem, the folder and its seconds.

    Raises:
        InputError: the preset `gpu` finds no accelerator.
    """
    from data_prep.errors import InputError
    from data_prep.files import write_text

    end = time.monotonic() + 60 * minutes
    folder.mkdir(parents=True, exist_ok=True)
    measured = json.loads(json.dumps(dataclasses.asdict(problem)))
    for name in (*stages(problem), TRAINING):
        path = folder / f"{name}.json"
        if path.exists() and _is_done(json.loads(path.read_text()), measured):
            continue
        start = time.monotonic()
        left = end - start
        if left <= 0:
            found = {"error": "no time was left"}
        elif name == TRAINING:
            found = train(problem, folder, left)
        else:
            found = run(name, problem, left / 2)
        if problem.preset == "gpu" and found.get("platform") == "cpu":
            raise InputError(
                "JAX finds no accelerator, only the CPU. With an NVIDIA GPU install the extra "
                "cuda: pip install -c constraints.txt -e '.[cuda]'."
            )
        found["seconds"] = time.monotonic() - start
        found["problem"] = measured
        write_text(path, json.dumps(found, indent=1) + "\n")
        print(f"{name}: {found.get('error') or found.get('skipped') or 'done'}", flush=True)


def _is_done(found: dict, problem: dict) -> bool:
    """True for the file of a stage that was measured, and for this problem."""
    return not found.keys() & {"error", "skipped"} and found.get("problem") == problem


def tables(folder: Path) -> str:
    """Returns the tables of docs/performance.md, in Markdown, from the files of a record."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    lines = []
    if "device" in found.get("environment", {}):
        facts = found["environment"]
        versions = ", ".join(f"{name} {value}" for name, value in facts["versions"].items())
        lines += [f"{facts['devices']} x {facts['device']}, {versions}, commit {facts['commit']}"]
    lines += ["", "| | batch | ms | images/s | MFU | FLOP per byte | temporaries | compile s |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    larger = [name for name in found if name.startswith("batch_")]
    larger.sort(key=lambda name: int(name.removeprefix("batch_")))
    for name in ("step", "step_by_pmap", *larger, "remat"):
        row = found.get(name, {"error": ""})
        title = "remat" if name == "remat" else "pmap" if name == "step_by_pmap" else "jit"
        if "out_of_memory" in row:
            lines.append(f"| step, {title} | {row['batch']} | out of memory | | | | | |")
        elif "error" not in row:
            mfu = f"{row['mfu']:.1%}" if row["mfu"] else ""
            intensity = f"{row['flops_per_byte']:,.0f}" if row["flops_per_byte"] else ""
            lines.append(
                f"| step, {title} | {row['batch']} | {row['milliseconds']:,.1f} | "
                f"{row['images_per_second']:,.1f} | {mfu} | {intensity} | "
                f"{row['temporary_bytes'] / 2**30:,.2f} GiB | {row['compile_seconds']:.1f} |"
            )
    for name, text in (
        ("embed", "Embedding with the mirrored image: {images_per_second:,.0f} images/s."),
        ("host_gap", "A step with new batches takes {gap:.1%} longer than with one batch."),
    ):
        if name in found and "error" not in found[name]:
            lines += ["", text.format(**found[name])]
    errors = [
        f"- {name}: {value.get('error') or value['skipped']}"
        for name, value in found.items()
        if value.keys() & {"error", "skipped"}
    ]
    return "\n".join([*lines, *(["", "Not measured:", *errors] if errors else [])]) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="gpu", choices=PROBLEMS)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--folder", type=Path, default=Path("runs/gpu_record"))
    parser.add_argument("--table", action="store_true", help="print the tables of a record")
    parser.add_argument("--stage", help="run one stage and print its result")
    options = parser.parse_args(arguments)
    problem = PROBLEMS[options.preset]
    if options.stage:
        print(json.dumps(stages(problem)[options.stage]()))
    elif options.table:
        print(tables(options.folder), end="")
    else:
        # An exception, so that the processes of a stage end too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(SAVED))
        record(options.folder, problem, options.minutes)
        print(tables(options.folder), end="")


if __name__ == "__main__":
    main()
