"""RMGL on CUHK03-NP, the 767/700 protocol (Table II).

    python -m experiments.cuhk03_rmgl --source DIR --workdir DIR --weights resnet50.pth
    python -m experiments.cuhk03_rmgl --dataset cuhk03_np/labeled ...

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores
  mgn, pcb          MGN and PCB in the same network, with the budget of paper
  mgn_cpu, pcb_cpu  the same with the budget of cpu

The default is the detected boxes.

Paper: labeled rank-1 79.9, mAP 77.9, re-ranked 87.8 / 89.1; detected 79.6 / 76.2, re-ranked
86.8 / 88.3. Not measured with this code.
"""

from rmgl_jax.experiment.command_line import run_main
from rmgl_jax.experiment.presets import presets_for

PRESETS = presets_for("cuhk03_np/detected")
PAPER = {
    "cuhk03_np/labeled": {"rank-1": 79.9, "mAP": 77.9},
    "cuhk03_np/labeled re-ranked": {"rank-1": 87.8, "mAP": 89.1},
    "cuhk03_np/detected": {"rank-1": 79.6, "mAP": 76.2},
    "cuhk03_np/detected re-ranked": {"rank-1": 86.8, "mAP": 88.3},
}

if __name__ == "__main__":
    run_main(PRESETS, PAPER, __doc__)
