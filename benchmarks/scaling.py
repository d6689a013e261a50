"""Estimates the time of a training step on many chips, from counted work and published peaks.

    python -m benchmarks.scaling --json docs/results/scaling.json    # the tables of docs/scaling.md
    python -m benchmarks.scaling --utilization 0.5 --figures v5e.json

Without `--json` they are printed, in the form of docs/results.py.

Nothing is run. Work is counted: floating-point operations of the full RMGL, bytes of its gradients
and the number of small reductions, by default those of docs/performance.md and of
`python -m benchmarks.aot`, whose output `--figures` reads. Peaks of arithmetic are those of
`training.throughput`, peaks of the links are in `MACHINES`. Three values are assumed, not measured:
the share of the peak that a step reaches, the latency of one reduction, and that reductions are not
hidden behind computation.
"""

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.files import write_text
from rmgl_jax.training.throughput import peak_flops

IMAGE_BYTES = 384 * 128 * 3
HOST_SECONDS = 1.0e-3 / 48  # to make one image of a batch, docs/performance.md
IMAGES = 48
PARTS = ("compute", "gradients", "latency", "input", "step")
MS = "{:,.2f}"
COLUMNS = [
    ["chips"],
    ["batch"],
    *([name, MS] for name in PARTS[:-1]),
    ["step ms", MS],
    ["images/s"],
    ["efficiency", "{}%"],
]
PEAK_COLUMNS = [
    [""],
    ["bfloat16 peak", "{} TFLOP/s"],
    [
        "links, one direction",
        "{} GB/s a chip",
        "{} GB/s a chip in a host of {}; {} GB/s a host to others ({} x {} Gbit/s)",
    ],
]
Row = list[float]


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


def rows(machine: Machine, weak: bool, work: Work, utilization: float) -> list[Row]:
    """Returns for each number of chips: chips, batch, five times in ms, images/s, efficiency."""
    found: list[Row] = []
    alone = estimate(machine, 1, IMAGES, work, utilization)["step"] / IMAGES
    for chips in machine.counts:
        if not weak and IMAGES % chips:
            continue
        images = IMAGES if weak else IMAGES // chips
        parts = estimate(machine, chips, images, work, utilization)
        batch = images * chips
        times = [round(1e3 * parts[name], 2) for name in PARTS]
        speed, efficiency = batch / parts["step"], alone * batch / (chips * parts["step"])
        found.append([chips, batch, *times, round(speed), round(100 * efficiency)])
    return found


def report(work: Work, utilization: float) -> dict[str, Any]:
    """Returns tables and values in the form of docs/results.py."""
    tables: dict[str, dict[str, Any]] = {
        f"{title}_{name}": {"columns": COLUMNS, "rows": rows(machine, weak, work, utilization)}
        for title, weak in (("total", False), ("per_chip", True))
        for name, machine in MACHINES.items()
    }
    weak = [
        row
        for name in MACHINES
        for row in tables[f"per_chip_{name}"]["rows"]
        if row[0] > 1  # nothing is exchanged on one chip
    ]
    total = {name: {row[0]: row for row in tables[f"total_{name}"]["rows"]} for name in MACHINES}
    on_16 = [total[name][16] for name in ("v5e", "v5p")]
    exchange = [10 * round(10 * sum(row[3:5]) / row[6]) for row in on_16]
    efficient = [total["v5e"][8][-1], total["v5p"][8][-1], total["H100"][4][-1]]
    values = {
        "counted": {
            "GFLOP an image": round(work.flops_per_image / 1e9, 1),
            "MB of gradients": round(work.gradient_bytes / 1e6),
            "small reductions": work.small_reductions,
            "ms of the host for a batch of 48": round(1e3 * IMAGES * HOST_SECONDS, 1),
        },
        "assumed": {
            "share of the peak, %": round(100 * utilization),
            "us of a reduction, and more for each doubling": {
                name: [round(1e6 * seconds) for seconds in machine.latency]
                for name, machine in MACHINES.items()
            },
        },
        "48 in total": {
            "share of exchange on 16 chips of a TPU, % in tens": exchange,
            "least efficiency of 8 chips of a TPU and of 4 GPUs, %": min(efficient),
        },
        "48 on each chip": {
            "ms of gradients": _range([row[3] for row in weak], 1),
            "ms of small reductions": _range([row[4] for row in weak], 1),
            "ms of computation": _range([row[2] for row in weak], None),
        },
    }
    tables["published"] = {"columns": PEAK_COLUMNS, "rows": [_peaks(n) for n in MACHINES]}
    command = "python -m benchmarks.scaling"
    return {"command": command, "values": values, "tables": tables}


def _range(values: list[float], digits: int | None) -> list[float]:
    return [round(min(values), digits), round(max(values), digits)]


def _peaks(name: str) -> list[Any]:
    machine = MACHINES[name]
    peak = peak_flops(machine.kind, "bfloat16")
    assert peak is not None
    link = [round(machine.link / 1e9)]
    if machine.network is not None:
        link += [machine.chips_per_host, round(machine.network / 1e9), machine.chips_per_host]
        link += [round(8 * machine.network / machine.chips_per_host / 1e9)]
    return [name + " (SXM)" * (name == "H100"), round(peak / 1e12), link if link[1:] else link[0]]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utilization", type=float, default=0.4, help="assumed share of the peak")
    parser.add_argument("--figures", type=Path, help="output of benchmarks.aot --preset gpu --json")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables to this file")
    arguments = parser.parse_args()
    work = Work()
    if arguments.figures:
        counted = json.loads(arguments.figures.read_text().splitlines()[0])
        causes = counted["collectives"]["by_cause"]
        work = Work(
            counted["flops"] * counted["chips"] / counted["images"],
            causes["gradients"]["bytes"],
            counted["collectives"]["count"] - causes["gradients"]["count"],
        )
    text = to_json(report(work, arguments.utilization))
    if arguments.json:
        write_text(arguments.json, text)
    else:
        print(text, end="")


def to_json(found: dict[str, Any]) -> str:
    """Returns the text of a file, with each row of a table on one line."""
    text = json.dumps(found, indent=1)
    return re.sub(r"\[\s*([^][]*?)\s*\]", lambda row: f"[{_join(row[1])}]", text) + "\n"


def _join(lines: str) -> str:
    return " ".join(lines.split())


if __name__ == "__main__":
    main()
