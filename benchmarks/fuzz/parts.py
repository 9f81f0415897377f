"""What mutations have in common: odd values, the parts of a model, and scrambled bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

Rng = np.random.Generator

NUMBERS = (
    *range(-3, 10), 15, 16, 17, 63, 64, 127, 128, 255, 256, 1000, 2**16 - 1, 2**16, 2**24, 2**24 + 1, 2**31 - 1, 2**31,
    2**32, 2**40, 2**48, 2**53 + 1, 2**60, 2**62, 2**63 - 1, -(2**31), -(2**31) - 1, -(2**60), -(2**63),
)  # fmt: skip
SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 31, 32, 64)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e30, 3.4e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", "x", "y", "a", "b", "SAME_UPPER", "NOTSET", "ai.onnx", "com.microsoft", "é\u202e", "a/../b", "n" * 300, "\0",
)  # fmt: skip
LOCATIONS = (
    "w.bin", "sub/w.bin", "sub/../w.bin", "inside.bin", "none.bin", "", ".", "..", "../secret.bin",
    "sub/../../secret.bin", "outside/secret.bin", "link.bin", "hard.bin", "loop.bin", "pipe.bin", "sub", "/dev/zero",
    "/etc/passwd", "..\\secret.bin", "sub\\w.bin", "C:\\w.bin", "C:w.bin", "\\\\server\\share\\w.bin", "w.bin\0",
    "~/w.bin", "file:///etc/passwd", "w.bin/", "./w.bin", "*/w.bin", "m.onnx", "NUL", "x" * 5000,
)  # fmt: skip


def pick(rng: Rng, among: Sequence[Any]) -> Any:
    """One of several."""
    return among[int(rng.integers(len(among)))]


def graphs(model: onnx.ModelProto) -> list[onnx.GraphProto | onnx.FunctionProto]:
    """The main graph, functions, and all bodies."""
    found: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    for graph in found:  # grows while it is gone through
        for node in graph.node:
            found += [a.g for a in node.attribute if a.HasField("g")] + [g for a in node.attribute for g in a.graphs]
    return found


def nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for graph in graphs(model) for node in graph.node]


def tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    held = [t for graph in graphs(model) if isinstance(graph, onnx.GraphProto) for t in graph.initializer]
    return held + [a.t for node in nodes(model) for a in node.attribute if a.HasField("t")]


def types(model: onnx.ModelProto) -> list[onnx.TypeProto]:
    return [
        value.type
        for graph in graphs(model)
        if isinstance(graph, onnx.GraphProto)
        for value in (*graph.input, *graph.output, *graph.value_info)
    ]


def names(model: onnx.ModelProto) -> list[str]:
    """Tensors that are written or given anywhere."""
    main = [v.name for v in (*model.graph.input, *model.graph.initializer)]
    return [*main, *(o for node in nodes(model) for o in node.output)] or [""]


def number(rng: Rng) -> int:
    """Small and plausible, or at a border."""
    return int(pick(rng, SIZES if rng.random() < 0.4 else NUMBERS))


def scrambled(rng: Rng, content: bytes) -> bytes:
    """Bytes changed, cut off, left out, doubled or put in."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at, size = int(rng.integers(len(found) + 1)), int(rng.integers(1, 17))
        choice = rng.random()
        if choice < 0.5 and at < len(found):
            found[at] = int(rng.integers(256))
        elif choice < 0.6 and at < len(found):
            found[at] ^= 1 << int(rng.integers(8))
        elif choice < 0.7:
            del found[at : at + size]
        elif choice < 0.8:
            found[at:at] = found[at : at + size]
        elif choice < 0.9:
            found[at:at] = rng.bytes(size)
        else:
            del found[at:]
    return bytes(found)
