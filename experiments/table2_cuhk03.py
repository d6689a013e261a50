"""RMGL, MGN and PCB with the same budget on CUHK03-NP (Table II).

    python -m experiments.table2_cuhk03 --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.table2_cuhk03 --dataset cuhk03_np/detected ...

The default is the labeled boxes. --rows RMGL runs only RMGL. Every run is also re-ranked.

"MGN" and "PCB" are in RMGL's network with RMGL's budget; "-as-published" are the networks and
settings of their own papers.

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  demo   a thin network at 96x48 from scratch, on synthetic/demo, for two CPU cores
  tiny   a few images, for a quick check

Not measured with this code.
"""

from rmgl_jax.experiment import presets
from rmgl_jax.experiment.command_line import sweep_main
from rmgl_jax.experiment.results import Row, Sweep, numbers

ROWS = (
    Row(
        "RMGL",
        presets.reranked(presets.rmgl),
        numbers(
            {
                "cuhk03_np/labeled": (77.9, 79.9),
                "cuhk03_np/detected": (76.2, 79.6),
                "cuhk03_np/labeled re-ranked": (89.1, 87.8),
                "cuhk03_np/detected re-ranked": (88.3, 86.8),
            }
        ),
    ),
    Row("MGN", presets.reranked(presets.mgn), baseline="RMGL"),
    Row("PCB", presets.reranked(presets.pcb), baseline="RMGL"),
    Row("MGN-as-published", presets.reranked(presets.mgn_as_published), baseline="MGN"),
    Row("PCB-as-published", presets.reranked(presets.pcb_as_published), baseline="PCB"),
)

PUBLISHED = {
    "HA-CNN": {"cuhk03_np/labeled": (41.0, 44.4), "cuhk03_np/detected": (38.6, 41.7)},
    "MLFN": {"cuhk03_np/labeled": (49.2, 54.7), "cuhk03_np/detected": (47.8, 52.8)},
    "PCB+RPP": {"cuhk03_np/detected": (57.5, 63.7)},
    "SFT": {"cuhk03_np/labeled": (62.4, 68.2)},
    "Mancs": {"cuhk03_np/labeled": (63.9, 69.0), "cuhk03_np/detected": (60.5, 65.5)},
    "PAP+PS": {"cuhk03_np/detected": (66.8, 72.5)},
    "CAMA": {"cuhk03_np/labeled": (66.5, 70.1), "cuhk03_np/detected": (64.2, 66.6)},
    "CASN": {"cuhk03_np/labeled": (68.0, 73.7), "cuhk03_np/detected": (64.4, 71.5)},
    "Auto-ReID": {"cuhk03_np/labeled": (73.0, 77.9), "cuhk03_np/detected": (69.3, 73.3)},
    "DSA-reID": {"cuhk03_np/labeled": (75.2, 78.9), "cuhk03_np/detected": (73.1, 78.2)},
    "Pyramid": {"cuhk03_np/labeled": (76.9, 78.9), "cuhk03_np/detected": (74.8, 78.9)},
}

SWEEP = Sweep(
    name="table2_cuhk03",
    title="CUHK03-NP (Table II)",
    presets=presets.sweep_presets("cuhk03_np/labeled"),
    rows=ROWS,
    published={method: numbers(pairs) for method, pairs in PUBLISHED.items()},
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
