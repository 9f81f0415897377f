"""What the adapter's step adds to a training step of ResNet-18 on the CPU."""

from __future__ import annotations

import statistics
import time

import torch
import torch.nn.functional as F

from benchmarks.networks import network
from benchmarks.timing import Row
from onnxmorph.adapters.torch import Morph

BATCH, SIZE, WARM, STEPS = 16, 64, 3, 15


def run() -> list[Row]:
    torch.manual_seed(0)
    module = network("resnet18").train()
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(0, 1000, (BATCH,))
    rows = []
    for kind, optimizer in (
        ("SGD", torch.optim.SGD(module.parameters(), 1e-3, momentum=0.9)),
        ("Adam", torch.optim.Adam(module.parameters(), 1e-4)),
    ):
        morph = Morph(module, images[:2], optimizer, budget="flops=50%", steps=1000)
        training, ours = [], []
        for n in range(WARM + STEPS):
            start = time.perf_counter()
            optimizer.zero_grad()
            F.cross_entropy(module(images), labels).backward()
            optimizer.step()
            middle = time.perf_counter()
            morph.step()
            if n >= WARM:
                training.append(middle - start)
                ours.append(time.perf_counter() - middle)
        mine, theirs = statistics.median(ours), statistics.median(training)
        rows.append(Row(f"resnet18: step() with {kind}", mine, f"training step, {BATCH} × {SIZE}²", theirs, 0.03))
    return rows
