"""RMGL on DukeMTMC-reID (Table I).

    python -m experiments.duke_rmgl --source DIR --workdir DIR --weights resnet50.pth

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores
  mgn, pcb          MGN and PCB in the same network, with the budget of paper
  mgn_cpu, pcb_cpu  the same with the budget of cpu

The dataset was withdrawn by its owners in 2019. This command reads a local copy and downloads
nothing. Think twice before you build on it.

Paper: rank-1 90.5, mAP 81.0; re-ranked 92.6 / 91.0. Not measured with this code.
"""

from rmgl_jax.experiment.command_line import run_main
from rmgl_jax.experiment.presets import presets_for

PRESETS = presets_for("dukemtmc_reid")
PAPER = {
    "dukemtmc_reid": {"rank-1": 90.5, "mAP": 81.0},
    "dukemtmc_reid re-ranked": {"rank-1": 92.6, "mAP": 91.0},
}

if __name__ == "__main__":
    run_main(PRESETS, PAPER, __doc__)
