"""Makes model_maps.npz: last maps and running statistics computed by PyTorch on its own.

Needs PyTorch and nothing of rmgl_jax: `python tests/golden/make_model_maps.py`. The network is
written from the paper with torch's layers, in NCHW, with the stripes concatenated along the batch
as III-B says.
"""

from pathlib import Path

import numpy as np
import seeded
import torch
import torch.nn.functional as F

STRIPES = (2, 3, 4)


class Network:
    """A ResNet as functions of a dictionary of tensors, with torch's batch norm."""

    def __init__(self, stride_in_1x1: bool, train: bool) -> None:
        self.stride_in_1x1 = stride_in_1x1
        self.train = train
        self.tensors = {
            name: torch.from_numpy(value) for name, value in seeded.resnet_arrays().items()
        }
        self.counts: dict[str, int] = {}  # values behind a channel's batch statistics

    def conv(self, x, name, stride=1):
        weight = self.tensors[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, x, name):
        get = self.tensors.__getitem__
        self.counts[name] = x.numel() // x.shape[1]
        return F.batch_norm(
            x,
            get(f"{name}.running_mean"),
            get(f"{name}.running_var"),
            get(f"{name}.weight"),
            get(f"{name}.bias"),
            training=self.train,
            momentum=0.1,
            eps=1e-5,
        )

    def block(self, x, name, stride):
        strides = (stride, 1) if self.stride_in_1x1 else (1, stride)
        y = F.relu(self.norm(self.conv(x, f"{name}.conv1", strides[0]), f"{name}.bn1"))
        y = F.relu(self.norm(self.conv(y, f"{name}.conv2", strides[1]), f"{name}.bn2"))
        y = self.norm(self.conv(y, f"{name}.conv3"), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in self.tensors:
            x = self.norm(self.conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return F.relu(x + y)

    def layer(self, x, number):
        for block in range(seeded.DEPTH[number - 1]):
            stride = 2 if block == 0 and number in (2, 3) else 1
            x = self.block(x, f"layer{number}.{block}", stride)
        return x

    def shared(self, x):
        x = F.relu(self.norm(self.conv(x, "conv1", 2), "bn1"))
        return self.layer(F.max_pool2d(x, 3, stride=2, padding=1), 1)

    def branch(self, x):
        for number in (2, 3, 4):
            x = self.layer(x, number)
        return x

    def receptive(self, x, stripes):
        """The branch on stripes of x, one after another along the batch, put together again."""
        y = self.branch(torch.cat(x.chunk(stripes, dim=2), dim=0))
        return torch.cat(y.chunk(stripes, dim=0), dim=2)


def main() -> None:
    torch.manual_seed(0)
    images = torch.from_numpy(seeded.images())
    golden = {}
    for variant, stride_in_1x1 in (("torchvision", False), ("msra", True)):
        network = Network(stride_in_1x1, train=False)
        shared = network.shared(images)
        golden[f"{variant}/original"] = network.branch(shared)
        for stripes in STRIPES:
            golden[f"{variant}/receptive{stripes}"] = network.receptive(shared, stripes)

    # A branch in training: both paths one after another through the same batch norms.
    network = Network(stride_in_1x1=False, train=True)
    shared = network.shared(images)
    golden["train/original"] = network.branch(shared)
    golden["train/receptive2"] = network.receptive(shared, 2)
    for name in network.counts:
        for suffix in ("running_mean", "running_var"):
            golden[f"train/{name}.{suffix}"] = network.tensors[f"{name}.{suffix}"]
        golden[f"train/{name}.count"] = torch.tensor(network.counts[name])

    arrays = {name: value.numpy() for name, value in golden.items()}
    for name, value in arrays.items():
        if value.ndim == 4:
            arrays[name] = np.ascontiguousarray(value.transpose(0, 2, 3, 1))
            print(f"{name}: {value.shape}, deviation {value.std():.2f}, largest {value.max():.2f}")
    np.savez_compressed(Path(__file__).with_name("model_maps.npz"), **arrays)


if __name__ == "__main__":
    with torch.no_grad():
        main()
