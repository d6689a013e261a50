"""RMGL on your own images: train, query and gallery folders (docs/datasets.md).

    python -m experiments.folder_rmgl --source DIR --workdir DIR --weights resnet50.pth

Without camera ids in the file names there is no same-camera rule, and the result says so.
"""

from experiments import presets
from experiments.run import main

PRESETS = {
    "paper": presets.paper("folder"),
    "gpu": presets.gpu("folder"),
    "cpu": presets.small("folder", epochs=24),
}

if __name__ == "__main__":
    main(PRESETS, {}, __doc__)
