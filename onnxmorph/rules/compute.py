"""Ops that multiply and accumulate."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, Write, refuse, rule


def conv(node: Node) -> Spec:
    """``n (g i) [y...], (g o) i [k...], (g o) -> n (g o) z...``: the window goes over fixed axes."""
    return Spec(
        "n (g i) [y...], (g o) i [k...], (g o) -> n (g o) z...",
        {"g": int(node.attributes["group"])},
        (Write("group", ("g",)),),
    )


def conv_transpose(node: Node) -> Spec:
    """``n (g i) [y...], (g i) o [k...], (g o) -> n (g o) z...``: the window goes over fixed axes."""
    return Spec(
        "n (g i) [y...], (g i) o [k...], (g o) -> n (g o) z...",
        {"g": int(node.attributes["group"])},
        (Write("group", ("g",)),),
    )


def gemm(node: Node) -> Spec:
    """``m k, k n, m n -> m n``, with either operand transposed and the third broadcast."""
    a = "k m" if node.attributes["transA"] else "m k"
    b = "n k" if node.attributes["transB"] else "k n"
    bias = node.in_shapes[2] if len(node.inputs) > 2 else None
    return Spec(f"{a}, {b}, {' '.join(['m', 'n'][2 - len(bias or ()) :])} -> m n")


def matmul(node: Node) -> Spec:
    """``b... m k, b... k n -> b... m n``, without m or n for a vector."""
    a, b = node.in_shapes[:2]
    if a is None or b is None:
        return refuse("unknown-shape", "the shape of an operand cannot be inferred")
    if len(a) == 1:
        return Spec("k, k -> " if len(b) == 1 else "k, b... k n -> b... n")
    return Spec("b... m k, k -> b... m" if len(b) == 1 else "b... m k, b... k n -> b... m n")


rule("Conv", conv, Cost("n g o i k z", 2, macs=True), weights=[1], bias=2)
rule("ConvTranspose", conv_transpose, Cost("n g i o k y", 2, macs=True), weights=[1], bias=2)
rule("Gemm", gemm, Cost("m n k", 2, macs=True), weights=[1], bias=2)
rule("MatMul", matmul, Cost("b m n k", 2, macs=True), weights=[0, 1])
