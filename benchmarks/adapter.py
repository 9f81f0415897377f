"""What the adapter's step adds to a training step of ResNet-18, in processor time on one thread.

The budget is to be met within the steps that are measured, so that channels go while the clock runs.
"""

from __future__ import annotations

import statistics
import time

import torch
import torch.nn.functional as F

from benchmarks.networks import network
from benchmarks.timing import Row
from onnxmorph.adapters.torch import Morph

BATCH, SIZE, WARM, STEPS = 16, 64, 2, 40


def run() -> list[Row]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = torch.randn(BATCH, 3, SIZE, SIZE), torch.randint(0, 1000, (BATCH,))
    rows = []
    for kind, build in (
        ("SGD", lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9)),
        ("Adam", lambda p: torch.optim.Adam(p, 1e-4)),
    ):
        module = network("resnet18").train()
        optimizer = build(module.parameters())
        morph = Morph(module, images[:2], optimizer, budget="flops=50%", steps=WARM + STEPS)
        training, ours = [], []
        for n in range(WARM + STEPS):
            start = time.process_time()
            optimizer.zero_grad()
            F.cross_entropy(module(images), labels).backward()
            optimizer.step()
            middle = time.process_time()
            morph.step()
            if n >= WARM:
                training.append(middle - start)
                ours.append(time.process_time() - middle)
        mine, theirs = statistics.mean(ours), statistics.mean(training)
        rows.append(Row(f"resnet18: step() with {kind}", mine, f"training step, {BATCH} × {SIZE}²", theirs, 0.03))
    return rows
