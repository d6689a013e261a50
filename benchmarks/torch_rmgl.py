"""RMGL in plain PyTorch, the reference of `benchmarks.train_step`.

Parameters and arithmetic are those of `rmgl_jax.models.rmgl` and of the loss (Eq. 4) in their
default configuration. Initialization is PyTorch's, which does not affect speed.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with a shortcut; the 3x3 convolution has the stride."""

    def __init__(self, inputs, width, stride, project):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.shortcut = nn.Identity()
        if project:
            conv = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x):
        """Applies the block."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x), inplace=True)


def stage(inputs, width, blocks, stride):
    """Returns a sequence of blocks, the first with the stride."""
    first = Bottleneck(inputs, width, stride, True)
    return nn.Sequential(
        first, *(Bottleneck(4 * width, width, 1, False) for _ in range(blocks - 1))
    )


def fold(x, stripes):
    """Folds stripes into the batch; in channels_last this moves no data."""
    x = x.permute(0, 2, 3, 1)
    b, h, w, c = x.shape
    return x.reshape(b * stripes, h // stripes, w, c).permute(0, 3, 1, 2)


def unfold(x, stripes):
    """Inverts `fold`."""
    x = x.permute(0, 2, 3, 1)
    b, h, w, c = x.shape
    return x.reshape(b // stripes, h * stripes, w, c).permute(0, 3, 1, 2)


def balanced_pool(x, stripes):
    """Activation balanced pooling (Eqs. 8 to 11), `[B, C, H, W] -> [B, S, C]`."""
    channels, height = x.shape[1:3]
    with torch.no_grad():
        peak = x.amax(3).argmax(2)
        rows = torch.arange(height, device=x.device)
        count = (peak[:, :, None] <= rows).sum(1)  # [B, H]
        inner = torch.arange(1, stripes, device=x.device)
        bounds = (stripes * count[:, :, None] <= channels * inner).sum(1)
        bounds = (bounds - inner).clamp(min=0).cummax(1).values
        bounds = F.pad(bounds.clamp(max=height - stripes) + inner, (1, 0))
        bounds = F.pad(bounds, (0, 1), value=height)
        inside = (bounds[:, :-1, None] <= rows) & (rows < bounds[:, 1:, None])
        weight = (inside / inside.sum(2, keepdim=True)).to(x.dtype)
    return weight @ x.mean(3).transpose(1, 2)


class TorchRMGL(nn.Module):
    """Features [B, N, D] and logits [B, N, classes] of normalized images [B, 3, H, W]."""

    def __init__(self, granularities, depth, width, embed_dim, classes):
        super().__init__()
        self.granularities = granularities
        self.conv, self.bn = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.res2 = stage(width, width, depth[0], 1)

        def branch():
            return nn.Sequential(
                stage(4 * width, 2 * width, depth[1], 2),
                stage(8 * width, 4 * width, depth[2], 2),
                stage(16 * width, 8 * width, depth[3], 1),
            )

        self.branches = nn.ModuleList(branch() for _ in granularities)
        self.count = sum(2 * (1 + stripes) for stripes in granularities)
        self.reduction = nn.Parameter(0.02 * torch.randn(self.count, 32 * width, embed_dim))
        self.norm = nn.BatchNorm1d(self.count * embed_dim)
        self.kernel = nn.Parameter(0.001 * torch.randn(self.count, embed_dim, classes))
        self.bias = nn.Parameter(torch.zeros(self.count, classes))

    def forward(self, images):
        """Returns features and logits."""
        x = F.relu(self.bn(self.conv(images)), inplace=True)
        x = self.res2(F.max_pool2d(x, 3, 2, 1))
        pooled = []
        for stripes, branch in zip(self.granularities, self.branches, strict=True):
            original = branch(x).float()
            receptive = unfold(branch(fold(x, stripes)), stripes).float()
            uniform = receptive.unflatten(2, (stripes, -1)).amax((3, 4)).transpose(1, 2)
            pooled += [original.amax((2, 3))[:, None], balanced_pool(original, stripes)]
            pooled += [receptive.amax((2, 3))[:, None], uniform]
        pooled = torch.cat(pooled, 1)
        features = torch.einsum("bnc,ncd->bnd", pooled, self.reduction)
        features = self.norm(features.flatten(1)).view_as(features)
        return features, torch.einsum("bnd,ndk->bnk", features, self.kernel) + self.bias


def triplet_loss(features, labels, margin):
    """Batch-hard triplet loss (Eq. 3), mean over anchors."""
    distance = torch.cdist(features, features)
    same = labels[:, None] == labels[None, :]
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive = distance.masked_fill(~same | itself, -torch.inf).amax(1)
    negative = distance.masked_fill(same, torch.inf).amin(1)
    return F.relu(margin + positive - negative).mean()


def total_loss(features, logits, labels, granularities, margin=0.6):
    """Total loss (Eq. 4): cross-entropy of every classifier and triplet loss of every branch."""
    features, logits = features.float(), logits.float()
    count = logits.shape[1]
    loss = count * F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(count))
    parts = features.split([2 * (1 + stripes) for stripes in granularities], dim=1)
    return loss + sum(triplet_loss(part.flatten(1), labels, margin) for part in parts)


def sgd(model, config):
    """Returns the optimizer of `rmgl_jax.training.optimizer`, with its rate of the heads."""
    heads = [model.reduction, model.kernel, model.bias, *model.norm.parameters()]
    known = {id(parameter) for parameter in heads}
    backbone = [parameter for parameter in model.parameters() if id(parameter) not in known]
    rate = config.learning_rate
    groups = [{"params": backbone}, {"params": heads, "lr": config.head_multiplier * rate}]
    return torch.optim.SGD(
        groups, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay, foreach=True
    )
