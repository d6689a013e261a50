"""RMGL, MGN and PCB with the same budget on Market-1501 and DukeMTMC-reID (Table I).

    python -m experiments.table1_market_duke --source DIR --weights resnet50.pth --preset gpu
    python -m experiments.table1_market_duke --dataset dukemtmc_reid ...
    python -m experiments.table1_market_duke --preset demo --seeds 3

--rows RMGL runs only RMGL. Every run is also re-ranked. Published numbers of other methods are in
the table.

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
                "market1501": (90.0, 96.2),
                "dukemtmc_reid": (81.0, 90.5),
                "market1501 re-ranked": (95.6, 96.7),
                "dukemtmc_reid re-ranked": (91.0, 92.6),
            }
        ),
    ),
    Row(
        "MGN",
        presets.reranked(presets.mgn),
        numbers({"market1501": (86.9, 95.7), "dukemtmc_reid": (78.4, 88.7)}),
        baseline="RMGL",
    ),
    Row("PCB", presets.reranked(presets.pcb), baseline="RMGL"),
    Row("MGN-as-published", presets.reranked(presets.mgn_as_published), baseline="MGN"),
    Row("PCB-as-published", presets.reranked(presets.pcb_as_published), baseline="PCB"),
)

PUBLISHED = {
    "HA-CNN": {"market1501": (75.7, 91.2), "dukemtmc_reid": (63.8, 80.5)},
    "DNN-CRF": {"market1501": (81.6, 93.5), "dukemtmc_reid": (69.5, 84.9)},
    "PCB+RPP": {"market1501": (81.6, 93.8), "dukemtmc_reid": (69.2, 83.3)},
    "Mancs": {"market1501": (82.3, 92.3), "dukemtmc_reid": (71.8, 84.9)},
    "GSRW": {"market1501": (82.5, 92.7), "dukemtmc_reid": (66.4, 80.7)},
    "AANet-50": {"market1501": (82.5, 93.9), "dukemtmc_reid": (72.6, 86.4)},
    "SFT": {"market1501": (82.7, 93.4), "dukemtmc_reid": (73.2, 86.9)},
    "SGGNN": {"market1501": (82.8, 92.3), "dukemtmc_reid": (68.2, 81.1)},
    "CASN": {"market1501": (82.8, 94.4), "dukemtmc_reid": (73.7, 87.7)},
    "IANet": {"market1501": (83.1, 94.4), "dukemtmc_reid": (73.4, 87.1)},
    "HPM+HRE": {"market1501": (83.1, 93.9), "dukemtmc_reid": (74.5, 86.3)},
    "CAMA": {"market1501": (84.5, 94.7), "dukemtmc_reid": (72.9, 85.8)},
    "Auto-ReID": {"market1501": (85.1, 94.5)},
    "PAP+PS": {"market1501": (85.6, 94.6), "dukemtmc_reid": (74.6, 87.5)},
    "DG-Net": {"market1501": (86.0, 94.8), "dukemtmc_reid": (74.8, 86.6)},
    "MGN": {"market1501": (86.9, 95.7), "dukemtmc_reid": (78.4, 88.7)},
    "DSA-reID": {"market1501": (87.6, 95.7), "dukemtmc_reid": (74.3, 86.2)},
    "Pyramid": {"market1501": (88.2, 95.7), "dukemtmc_reid": (79.0, 89.0)},
}

SWEEP = Sweep(
    name="table1_market_duke",
    title="Market-1501 and DukeMTMC-reID (Table I)",
    presets=presets.sweep_presets("market1501"),
    rows=ROWS,
    published={method: numbers(pairs) for method, pairs in PUBLISHED.items()},
)

if __name__ == "__main__":
    sweep_main(SWEEP, __doc__)
