"""Values that pass the borders of bodies: the branches of If, the states and scanned tensors of Loop and Scan."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Spec, axis_of, fixed, letters, refuse, rule


def crosses(node: Node) -> Spec:
    """``a..., a... -> a...``: branches, and a state before and after an iteration, are cut alike.

    A tensor that is taken apart, or stacked, over the iterations keeps that axis: its positions are iterations.
    """
    crossing = node.crossing
    if crossing is None:
        return refuse("body", "what its body does with a tensor is not followed")
    inputs, output = node.in_shapes[: crossing.meet], node.out_shapes[0]
    if crossing.axis is None:
        if None not in inputs and any(shape != output for shape in inputs):
            return refuse("body-shape", "its branches, or its iterations, give this value different shapes")
        return Spec(f"{', '.join(['a...'] * crossing.meet)} -> a...")
    whole = inputs[0] if crossing.inward else output
    if whole is None:
        return refuse("unknown-shape", "a shape cannot be inferred")
    names = letters(len(whole))
    axis = axis_of(crossing.axis, len(whole))
    part = " ".join(n for t, n in enumerate(names) if t != axis)
    along = " ".join(f"[{n}]" if t == axis else n for t, n in enumerate(names))
    return Spec(f"{along} -> {part}" if crossing.inward else f"{part} -> {along}")


rule("If Loop Scan", crosses)
fixed("SequenceMap", "sequence", "maps a body over a sequence, whose tensors may differ in shape")
