"""RMGL on MSMT17 (Table III).

    python -m experiments.msmt17_rmgl --source DIR --workdir DIR --weights resnet50.pth
    python -m experiments.msmt17_rmgl --dataset msmt17/trainval ...

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch

The default trains on the 30,248 images of `train`; `trainval` is 32,621. Papers differ, and the
paper does not say which it used.

Paper: rank-1 83.6, mAP 60.4. Not measured with this code.
"""

from rmgl_jax.experiment import presets
from rmgl_jax.experiment.run import main

PRESETS = {
    "paper": presets.paper("msmt17/train"),
    "gpu": presets.gpu("msmt17/train"),
    "cpu": presets.small("msmt17/train", epochs=15),
}
PAPER = {
    "msmt17/train": {"rank-1": 83.6, "mAP": 60.4},
    "msmt17/trainval": {"rank-1": 83.6, "mAP": 60.4},
}

if __name__ == "__main__":
    main(PRESETS, PAPER, __doc__)
