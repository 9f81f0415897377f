"""A residual network of as many layers as asked for, in four stages, and a structure and a log of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx

from onnxmorph.analysis import Analysis
from onnxmorph.structure import Structure
from tiny import model, node, value, weight

STAGES = (16, 24, 32, 48)


def deep(layers: int) -> onnx.ModelProto:
    """A stem, residual blocks of two convolutions, a convolution between stages, and a head: `layers` in all."""
    blocks = (layers - 1 - len(STAGES)) // 2
    nodes, weights, x, width, n = [], [], "x", 3, 0

    def conv(name: str, y: str, wide: int) -> str:
        weights.append(weight(f"{name}.weight", wide, width if y == x else wide, 3, 3, seed=n))
        nodes.append(node("Conv", f"{y} {name}.weight", f"{name}.out", name, pads=[1, 1, 1, 1]))
        return f"{name}.out"

    for stage, wide in enumerate(STAGES):
        x, width = conv(f"stage{stage}.down", x, wide), wide
        while n < blocks * (stage + 1) // len(STAGES):
            name = f"stage{stage}.block{n}"
            nodes.append(node("Relu", conv(f"{name}.conv1", x, wide), f"{name}.relu", f"{name}.act"))
            nodes.append(
                node("Add", f"{conv(f'{name}.conv2', f'{name}.relu', wide)} {x}", f"{name}.sum", f"{name}.add")
            )
            x, n = f"{name}.sum", n + 1
    nodes.append(node("GlobalAveragePool", x, "pooled", "pool"))
    nodes.append(node("Flatten", "pooled", "flat", "flatten"))
    nodes.append(node("Gemm", "flat head.weight", "y", "head"))
    weights.append(weight("head.weight", width, 10))
    return model(nodes, weights, [value("x", ["n", 3, 8, 8])], [value("y", ["n", 10])])


def cut(analysis: Analysis, seed: int = 0) -> Structure:
    """Channels chosen at random; a few branches go as a whole."""
    rng = np.random.default_rng(seed)
    copies = np.ones(analysis.channels + 1, np.int64)
    for g in analysis.groups:
        branch = "conv1" in g.id
        left = 0 if branch and rng.random() < 0.03 else rng.integers(g.width // 4, g.width + 1)
        copies[g.start + 1 : g.start + 1 + g.width] = np.arange(g.width) < left
    return Structure.of(analysis, copies, method="at random", seed=seed)


def log(structure: Structure, path: Path, rows: int = 200) -> None:
    """As training would have written it on the way to a structure."""
    rng = np.random.default_rng(0)
    begin = rng.uniform(0, 0.6, len(structure.groups))
    full = structure.costs["before"]["flops"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["step", "strength", "cost/flops", *(f"width/{g.id}" for g in structure.groups)])
        for row in range(rows):
            done = np.clip((row / rows - begin) / 0.3, 0, 1)
            widths = [round(g.width - (g.width - len(g.keep)) * d) for g, d in zip(structure.groups, done, strict=True)]
            writer.writerow([10 * row, 1e-3 * (1 - np.exp(-5 * row / rows)), full * (1 - 0.5 * done.mean()), *widths])
