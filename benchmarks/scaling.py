"""Estimates the time of a training step on many chips, from counted work and published peaks.

    python -m benchmarks.scaling                 # the tables of docs/scaling.md
    python -m benchmarks.scaling --utilization 0.5 --figures v5e.json

Nothing is run. Work is counted: floating-point operations of the full RMGL, bytes of its gradients
and the number of small reductions, by default those of docs/performance.md and of
`python -m benchmarks.aot`, whose output `--figures` reads. Peaks of arithmetic are those of
`training.throughput`, peaks of the links are in `MACHINES`. Three values are assumed, not measured:
the share of the peak that a step reaches, the latency of one reduction, and that reductions are not
hidden behind computation.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from rmgl_jax.training.throughput import peak_flops

IMAGE_BYTES = 384 * 128 * 3
HOST_SECONDS = 1.0e-3 / 48  # to make one image of a batch, docs/performance.md
IMAGES = 48


@dataclass(frozen=True)
class Machine:
    """One kind of chip and its links. Bandwidths are bytes a second in one direction."""

    kind: str
    """Name in JAX, for the peak of its arithmetic."""
    counts: tuple[int, ...]
    link: float
    """Of a chip, within a pod or within a host of GPUs."""
    network: float | None
    """Of a host, to other hosts; None if the links of the pod connect them."""
    chips_per_host: int
    to_device: float
    """From the host's memory to all its chips."""
    latency: tuple[float, float]
    """Assumed seconds of one small reduction: for 2 chips, and more for each doubling."""


MACHINES = {
    "v5e": Machine("TPU v5 lite", (1, 4, 8, 16, 64, 256), 200e9, None, 4, 16e9, (5e-6, 3e-6)),
    "v5p": Machine("TPU v5", (1, 4, 8, 16, 64, 256), 600e9, None, 4, 16e9, (5e-6, 3e-6)),
    "H100": Machine("H100", (1, 2, 4, 8, 16, 64), 450e9, 400e9, 8, 64e9, (10e-6, 5e-6)),
}


@dataclass(frozen=True)
class Work:
    """One training step, as counted."""

    flops_per_image: float = 1055.1e9 / 8
    gradient_bytes: float = 4 * 56_840_018
    small_reductions: int = 93


def estimate(
    machine: Machine, chips: int, images: int, work: Work, utilization: float
) -> dict[str, float]:
    """Returns the seconds of a step's parts; `images` is the batch of one chip."""
    peak = peak_flops(machine.kind, "bfloat16")
    assert peak is not None
    hosts = -(-chips // machine.chips_per_host)
    # A ring enters and leaves every host once.
    outside = machine.network if hosts > 1 and machine.network is not None else machine.link
    link = min(machine.link, outside)
    doublings = (chips - 1).bit_length()
    first, more = machine.latency
    local = images * min(chips, machine.chips_per_host)
    parts = {
        "compute": images * work.flops_per_image / (utilization * peak),
        # A ring sends every byte twice, but for the share that a chip owns.
        "gradients": 2 * (chips - 1) / chips * work.gradient_bytes / link,
        "latency": work.small_reductions * (first + more * (doublings - 1)) if chips > 1 else 0.0,
    }
    # The host prepares the next batch while the devices compute.
    parts["input"] = local * (HOST_SECONDS + IMAGE_BYTES / machine.to_device)
    parts["step"] = max(parts["compute"] + parts["gradients"] + parts["latency"], parts["input"])
    return parts


def rows(machine: Machine, weak: bool, work: Work, utilization: float) -> list[str]:
    """Returns the rows of a table in Markdown."""
    found = []
    alone = estimate(machine, 1, IMAGES, work, utilization)["step"] / IMAGES
    for chips in machine.counts:
        if not weak and IMAGES % chips:
            continue
        images = IMAGES if weak else IMAGES // chips
        parts = estimate(machine, chips, images, work, utilization)
        batch = images * chips
        efficiency = alone * batch / (chips * parts["step"])
        times = " | ".join(
            f"{1e3 * parts[name]:,.2f}"
            for name in ("compute", "gradients", "latency", "input", "step")
        )
        found.append(
            f"| {chips} | {batch:,} | {times} | {batch / parts['step']:,.0f} | {efficiency:.0%} |"
        )
    return found


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utilization", type=float, default=0.4, help="assumed share of the peak")
    parser.add_argument("--figures", type=Path, help="output of benchmarks.aot --preset gpu --json")
    arguments = parser.parse_args()
    work = Work()
    if arguments.figures:
        found = json.loads(arguments.figures.read_text().splitlines()[0])
        causes = found["collectives"]["by_cause"]
        work = Work(
            found["flops"] * found["chips"] / found["images"],
            causes["gradients"]["bytes"],
            found["collectives"]["count"] - causes["gradients"]["count"],
        )
    for title, weak in (("Batch of 48 in total", False), ("48 images on each chip", True)):
        print(f"### {title}\n")
        for name, machine in MACHINES.items():
            print(f"{name}:\n")
            columns = (
                "chips, batch, compute, gradients, latency, input, step ms, images/s, efficiency"
            )
            print(f"| {columns.replace(', ', ' | ')} |\n{'|---' * 9}|")
            print("\n".join(rows(machine, weak, work, arguments.utilization)), end="\n\n")


if __name__ == "__main__":
    main()
