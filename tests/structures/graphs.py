"""What graphs may look like whatever the network: names, sharing, constants, several outputs."""

from __future__ import annotations

import onnx

from structures.registry import graph
from tiny import model, node, value, weight


@graph("one_weight_both_ways", widths=[8])
def one_weight_both_ways() -> onnx.ModelProto:
    """Tied embeddings in small: one weight read as it is, and transposed."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("Relu", "h", "r"),
        node("Transpose", "a", "b"),
        node("MatMul", "r b", "y"),
    ]
    return model(nodes, [weight("a", 4, 8)], outputs=[value("y", ["n", 4])])
