"""What graphs may look like whatever the network: names, sharing, constants, several outputs."""

from __future__ import annotations

import onnx

from structures.registry import graph
from tiny import integers, model, node, value, weight


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


@graph("samples_mixed_by_a_reshape", widths=[], removable=0.0)
def samples_mixed_by_a_reshape() -> onnx.ModelProto:
    """With one sample this only moves an axis; with more, each channel gets numbers of several: nothing may go."""
    nodes = [
        node("Gemm", "x a", "h"),
        node("Reshape", "h turned", "r"),
        node("Transpose", "r", "s", perm=[1, 0]),
        node("Gemm", "s b", "y"),
    ]
    return model(nodes, [weight("a", 4, 8), integers("turned", 8, -1), weight("b", 8, 3, seed=1)])
