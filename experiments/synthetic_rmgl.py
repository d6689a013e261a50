"""RMGL on the synthetic pedestrians that this project renders: runs at once, without any data.

    python -m experiments.synthetic_rmgl --workdir DIR

Presets
  demo   about 2,000 images, a thin network, minutes on two CPU cores (the default; `make demo`)
  tiny   a few images, seconds: to see that everything works
  mgn, pcb  MGN and PCB in the same network, under the budget of demo
  paper  ResNet-50 at 384x128 on as many images as Market-1501 has

What was measured is in docs/reproduction.md.
"""

from rmgl_jax.experiment import presets
from rmgl_jax.experiment.run import main

PRESETS = {
    "demo": presets.small("synthetic/demo", epochs=24),
    "tiny": presets.tiny("synthetic/tiny"),
    "mgn": presets.mgn(presets.small("synthetic/demo", epochs=24)),
    "pcb": presets.pcb(presets.small("synthetic/demo", epochs=24)),
    "paper": presets.paper("synthetic/full"),
}

if __name__ == "__main__":
    main(PRESETS, {}, __doc__)
