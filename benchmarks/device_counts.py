"""Trains some steps on 1 to 8 simulated devices, in one and in two processes, and compares losses.

    python -m benchmarks.device_counts --steps 5

The network is the tiny preset with a batch of 32. Prints the largest relative difference of a loss
from the run on one device. The devices share the cores of one machine, so times say nothing.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace

LAYOUTS = ((1, 1), (1, 2), (1, 4), (1, 8), (2, 2), (2, 4))
"""Processes, and devices of each."""


def losses(steps: int, address: str | None, process: int) -> list[float]:
    """Trains in this process, or as one of two, and returns the loss of each step."""
    import jax
    import numpy as np

    if address:
        jax.distributed.initialize(address, 2, process)
    from rmgl_jax.experiment import presets
    from rmgl_jax.training.step import make_train_step

    config = presets.tiny("synthetic/tiny")
    # Low, so that rounding does not grow from step to step.
    optimizer = replace(config.optimizer, learning_rate=1e-4, warmup_epochs=0)
    config = replace(config, optimizer=optimizer)
    step = make_train_step(config, 100)
    state, key = step.replicate(step.create()), jax.random.key(0)
    ids, images = config.train.num_ids, config.train.num_instances
    rng, found = np.random.default_rng(0), []
    for _ in range(steps):
        pixels = rng.integers(0, 256, (ids * images, *config.model.image_size, 3), dtype=np.uint8)
        batch = {"images": pixels, "labels": np.repeat(np.arange(ids, dtype=np.int32), images)}
        part = slice(None)
        if address:
            half = ids * images // 2
            part = slice(process * half, (process + 1) * half)
        batch = step.put({name: array[part] for name, array in batch.items()})
        state, metrics = step.run(state, batch, key)
        found.append(float(metrics["loss"]))
    return found


def run(steps: int, processes: int, devices: int) -> list[float]:
    """Returns the losses on a layout."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    flags = f"--xla_force_host_platform_device_count={devices}"
    started = []
    for number in range(processes):
        command = [sys.executable, "-m", "benchmarks.device_counts", "--steps", str(steps)]
        command += ["--process", str(number)]
        if processes > 1:
            command += ["--address", address]
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{processes} x {devices}: a process failed.")
    return json.loads(outputs[0].splitlines()[-1])


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--process", type=int, help="train in this process only")
    parser.add_argument("--address", help="of the first of two processes")
    arguments = parser.parse_args()
    if arguments.process is not None:
        print(json.dumps(losses(arguments.steps, arguments.address, arguments.process)))
        return
    expected = None
    for processes, devices in LAYOUTS:
        found = run(arguments.steps, processes, devices)
        expected = expected or found
        pairs = zip(found, expected, strict=True)
        difference = max(abs(a - b) / abs(b) for a, b in pairs)
        print(f"{processes} x {devices}: {difference:.1e}, last loss {found[-1]:.6f}", flush=True)


if __name__ == "__main__":
    main()
