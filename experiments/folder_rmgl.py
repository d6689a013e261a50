"""RMGL on your own images, in train, query and gallery folders (docs/how_to/prepare_datasets.md).

    python -m experiments.folder_rmgl --source DIR --workdir DIR --weights resnet50.pth

Presets
  paper  ResNet-50 at 384x128, float32, 60 epochs (the default)
  gpu    the same in bfloat16
  cpu    a thin network at 96x48 for two CPU cores, from scratch
  cpu_pretrained  ResNet-50 up to res4 at 128x64, 5 epochs from --weights, for two CPU cores
  mgn, pcb          MGN and PCB in the same network, with the budget of paper
  mgn_cpu, pcb_cpu  the same with the budget of cpu

Without query and gallery the model is trained and not evaluated. Without camera ids in the file
names no gallery images are excluded for having the query's camera, and the result says so.
"""

from rmgl_jax.experiment.command_line import run_main
from rmgl_jax.experiment.presets import presets_for

PRESETS = presets_for("folder")

if __name__ == "__main__":
    run_main(PRESETS, {}, __doc__)
