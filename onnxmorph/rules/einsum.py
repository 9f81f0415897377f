"""Einsum, whose attribute is an equation already."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, refuse, rule


def einsum(node: Node) -> Spec:
    """``e0 e1, e1 e2 -> e0 e2``, or whatever its attribute says: every letter is a factor, an ellipsis ``e...``.

    A letter that stands twice in one operand takes the diagonal: both axes lose the same positions.
    """
    text = "".join(node.attributes["equation"].split())
    left, arrow, right = text.partition("->")
    if not all(c.isalpha() or c in ".," for c in left + right) or len(left.split(",")) != len(node.inputs):
        return refuse("einsum", f"its equation {text!r} does not fit its operands")
    letters = {c: f"e{i}" for i, c in enumerate(sorted({c for c in text if c.isalpha()}))}
    if not arrow:
        right = "." * ("." in left) + "".join(c for c in letters if left.count(c) == 1)

    def axes(tensor: str) -> str:
        return " ".join("e..." if c == "." else letters[c] for c in tensor.replace("...", "."))

    sides = ", ".join(axes(tensor) for tensor in left.split(",")), axes(right)
    adds = len(node.inputs) == 1 and set(left) != set(right)
    cost = None if len(node.inputs) > 1 else Cost("e", int(adds))
    return Spec(" -> ".join(sides), cost=cost)


rule("Einsum", einsum, Cost("e", 2, macs=True), weights=range(8))
