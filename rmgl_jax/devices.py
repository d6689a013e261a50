"""The device mesh over which batches are sharded."""

import jax
import numpy as np
from jax.sharding import Mesh

AXIS = "data"
"""Name of the mesh axis."""


def data_mesh() -> Mesh:
    """One-dimensional mesh of all devices of all processes.

    The devices of a process are consecutive, so that the global batch is the concatenation of the
    processes' batches in process order. `jax.devices()` does not guarantee this on a TPU pod.
    """
    processes = range(jax.process_count())
    devices = [device for process in processes for device in jax.local_devices(process)]
    return Mesh(np.array(devices), (AXIS,))
