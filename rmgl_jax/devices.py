"""The devices of all processes as one row, over which batches are spread."""

import jax
import numpy as np
from jax.sharding import Mesh

AXIS = "data"
"""Name of the mesh's axis."""


def data_mesh() -> Mesh:
    """All devices of all processes, one axis.

    Those of a process stand side by side, so that the global batch is the processes' parts in
    their order. (`jax.devices()` of a TPU pod may have another.)
    """
    processes = range(jax.process_count())
    devices = [device for process in processes for device in jax.local_devices(process)]
    return Mesh(np.array(devices), (AXIS,))
