"""RMGL on Market-1501: the paper's main result (Table I).

    python -m experiments.market_rmgl --source DIR --workdir DIR --weights resnet50.pth

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin two-stripe RMGL at 96x48, from scratch: about half an hour on two CPU cores
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores
  mgn, pcb          MGN and PCB in the same network, with the budget of paper
  mgn_cpu, pcb_cpu  the same with the budget of cpu

Paper: rank-1 96.2, mAP 90.0; re-ranked 96.7 / 95.6. Numbers measured with this code are in
docs/reproduction.md, with command and commit.
"""

from rmgl_jax.experiment.command_line import run_main
from rmgl_jax.experiment.presets import presets_for

PRESETS = presets_for("market1501")
PAPER = {
    "market1501": {"rank-1": 96.2, "mAP": 90.0},
    "market1501 re-ranked": {"rank-1": 96.7, "mAP": 95.6},
}

if __name__ == "__main__":
    run_main(PRESETS, PAPER, __doc__)
