"""RMGL on MSMT17 (Table III).

    python -m experiments.msmt17_rmgl --source DIR --workdir DIR --weights resnet50.pth
    python -m experiments.msmt17_rmgl --dataset msmt17/trainval ...

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores
  mgn, pcb          MGN and PCB in the same network, with the budget of paper
  mgn_cpu, pcb_cpu  the same with the budget of cpu

The default trains on the 30,248 images of `train`; `trainval` has 32,621. Publications differ, and
the paper does not say which it used.

Paper: rank-1 83.6, mAP 60.4. Not measured with this code.
"""

from rmgl_jax.experiment.command_line import run_main
from rmgl_jax.experiment.presets import presets_for

PRESETS = presets_for("msmt17/train")
PAPER = {
    "msmt17/train": {"rank-1": 83.6, "mAP": 60.4},
    "msmt17/trainval": {"rank-1": 83.6, "mAP": 60.4},
}

if __name__ == "__main__":
    run_main(PRESETS, PAPER, __doc__)
