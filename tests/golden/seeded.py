"""Arrays that the golden script and the tests make alike, so that they need not be stored.

Each is a function of its name alone. `RandomState` is used because NumPy keeps its stream for good.
"""

import zlib

import numpy as np

DEPTH = (1, 2, 2, 1)
WIDTH = 4
IMAGE_SIZE = (192, 32)


def _random(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def images() -> np.ndarray:
    """Two images `[2, 3, 192, 32]`, as torch has them."""
    return _random("images").standard_normal((2, 3, *IMAGE_SIZE)).astype(np.float32)


def resnet_arrays() -> dict[str, np.ndarray]:
    """All arrays of a bottleneck ResNet of `DEPTH` and `WIDTH`, in torchvision's names."""
    arrays = {}

    def conv(name: str, outputs: int, inputs: int, size: int) -> None:
        scale = (2 / (inputs * size**2)) ** 0.5
        shape = (outputs, inputs, size, size)
        arrays[f"{name}.weight"] = scale * _random(name).standard_normal(shape)

    def norm(name: str, channels: int) -> None:
        random = _random(name)
        arrays[f"{name}.weight"] = random.uniform(0.5, 1.0, channels)  # keeps maps of order 1
        arrays[f"{name}.bias"] = random.uniform(-0.5, 0.5, channels)
        arrays[f"{name}.running_mean"] = random.uniform(-0.5, 0.5, channels)
        arrays[f"{name}.running_var"] = random.uniform(0.5, 1.5, channels)

    conv("conv1", WIDTH, 3, 7)
    norm("bn1", WIDTH)
    inputs = WIDTH
    for layer, blocks in enumerate(DEPTH):
        inner = WIDTH * 2**layer
        for block in range(blocks):
            name = f"layer{layer + 1}.{block}"
            conv(f"{name}.conv1", inner, inputs, 1)
            conv(f"{name}.conv2", inner, inner, 3)
            conv(f"{name}.conv3", 4 * inner, inner, 1)
            for index, channels in enumerate((inner, inner, 4 * inner), start=1):
                norm(f"{name}.bn{index}", channels)
            if block == 0:
                conv(f"{name}.downsample.0", 4 * inner, inputs, 1)
                norm(f"{name}.downsample.1", 4 * inner)
            inputs = 4 * inner
    return {name: value.astype(np.float32) for name, value in arrays.items()}
