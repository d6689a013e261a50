"""RMGL on synthetic pedestrians that this project renders: needs no data.

    python -m experiments.synthetic_rmgl --workdir DIR

Presets
  demo      about 2,000 images, a thin network, minutes on two CPU cores (the default; `make demo`)
  tiny      a few images, for a quick check
  mgn, pcb  MGN and PCB in the same network, with the budget of demo
  paper     ResNet-50 at 384x128 on as many images as Market-1501 has, from --weights
  cpu_pretrained  ResNet-50 up to res4 at 128x64 on the same images, 5 epochs from --weights

Measured results are in docs/reproduction.md.
"""

from rmgl_jax.experiment.command_line import run_main
from rmgl_jax.experiment.presets import presets_for

PRESETS = presets_for("synthetic")

if __name__ == "__main__":
    run_main(PRESETS, {}, __doc__)
