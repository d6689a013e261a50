"""Writes sgd_trajectory.npz: a small problem trained by torch's SGD with the paper's schedule.

Two groups (the head ten times as fast), momentum 0.9, weight decay 1e-3, exponential warm-up over
3 epochs of 4 steps, a drop after epoch 5 and one after epoch 7. Run with torch installed:
`python tests/golden/make_sgd_trajectory.py`.
"""

from pathlib import Path

import numpy as np
import torch

EPOCH, WARMUP, DROPS, STEPS = 4, 3, (5, 7), 40
rng = np.random.default_rng(0)
inputs = rng.normal(size=(8, 5)).astype(np.float32)
targets = rng.normal(size=(8, 2)).astype(np.float32)
kernel = rng.normal(size=(5, 3)).astype(np.float32)
head = rng.normal(size=(3, 2)).astype(np.float32)
bias = rng.normal(size=(2,)).astype(np.float32)

backbone = [torch.nn.Parameter(torch.tensor(kernel))]
classifier = [torch.nn.Parameter(torch.tensor(head)), torch.nn.Parameter(torch.tensor(bias))]
optimizer = torch.optim.SGD(
    [{"params": backbone, "times": 1.0}, {"params": classifier, "times": 10.0}],
    lr=1.0,
    momentum=0.9,
    weight_decay=1e-3,
)
trajectory: dict[str, list[np.ndarray]] = {"kernel": [], "head": [], "bias": []}
for step in range(STEPS):
    rate = 0.01 * 0.1 ** sum(step >= drop * EPOCH for drop in DROPS)
    if step < WARMUP * EPOCH:
        rate = 1e-5 * (0.01 / 1e-5) ** (step / (WARMUP * EPOCH))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["times"]
    predicted = torch.tanh(torch.tensor(inputs) @ backbone[0]) @ classifier[0] + classifier[1]
    loss = (predicted - torch.tensor(targets)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for name, parameter in zip(trajectory, [*backbone, *classifier], strict=True):
        trajectory[name].append(parameter.detach().numpy().copy())
np.savez_compressed(
    Path(__file__).with_name("sgd_trajectory.npz"),
    inputs=inputs,
    targets=targets,
    kernel0=kernel,
    head0=head,
    bias0=bias,
    **{name: np.stack(values) for name, values in trajectory.items()},
)
