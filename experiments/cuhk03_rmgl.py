"""RMGL on CUHK03-NP, the 767/700 protocol (Table II).

    python -m experiments.cuhk03_rmgl --source DIR --workdir DIR --weights resnet50.pth
    python -m experiments.cuhk03_rmgl --dataset cuhk03_np/labeled ...

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch

The default is the detected boxes.

Paper: labeled rank-1 79.9, mAP 77.9, re-ranked 87.8 / 89.1; detected 79.6 / 76.2, re-ranked
86.8 / 88.3. Not measured with this code.
"""

from rmgl_jax.experiment import presets
from rmgl_jax.experiment.run import main

PRESETS = {
    "paper": presets.paper("cuhk03_np/detected"),
    "gpu": presets.gpu("cuhk03_np/detected"),
    "cpu": presets.small("cuhk03_np/detected", epochs=60),
}
PAPER = {
    "cuhk03_np/labeled": {"rank-1": 79.9, "mAP": 77.9},
    "cuhk03_np/labeled re-ranked": {"rank-1": 87.8, "mAP": 89.1},
    "cuhk03_np/detected": {"rank-1": 79.6, "mAP": 76.2},
    "cuhk03_np/detected re-ranked": {"rank-1": 86.8, "mAP": 88.3},
}

if __name__ == "__main__":
    main(PRESETS, PAPER, __doc__)
