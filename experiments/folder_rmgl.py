"""RMGL on your own images: train, query and gallery folders (docs/datasets.md).

    python -m experiments.folder_rmgl --source DIR --workdir DIR --weights resnet50.pth

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch

Without camera ids in the file names there is no same-camera rule, and the result says so.
"""

from rmgl_jax.experiment import presets
from rmgl_jax.experiment.run import main

PRESETS = {
    "paper": presets.paper("folder"),
    "gpu": presets.gpu("folder"),
    "cpu": presets.small("folder", epochs=24),
}

if __name__ == "__main__":
    main(PRESETS, {}, __doc__)
