"""RMGL on DukeMTMC-reID (Table I).

    python -m experiments.duke_rmgl --source DIR --workdir DIR --weights resnet50.pth

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch

The set was withdrawn by its owners in 2019. This reads a local copy and downloads nothing; think
twice before you build on it.

Paper: rank-1 90.5, mAP 81.0; re-ranked 92.6 / 91.0. Not measured with this code.
"""

from rmgl_jax.experiment import presets
from rmgl_jax.experiment.run import main

PRESETS = {
    "paper": presets.paper("dukemtmc_reid"),
    "gpu": presets.gpu("dukemtmc_reid"),
    "cpu": presets.small("dukemtmc_reid", epochs=30),
}
PAPER = {
    "dukemtmc_reid": {"rank-1": 90.5, "mAP": 81.0},
    "dukemtmc_reid re-ranked": {"rank-1": 92.6, "mAP": 91.0},
}

if __name__ == "__main__":
    main(PRESETS, PAPER, __doc__)
