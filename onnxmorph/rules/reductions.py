"""Reductions and pooling."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, axes_of, axis_of, letters, refuse, rule


def _reduce(node: Node, mark: str) -> Spec:
    shape = node.in_shapes[0]
    axes = axes_of(node.parameter("axes"), len(shape or ()))
    if shape is None or (axes is None and node.input_index("axes") is not None):
        return refuse("dynamic", "its axes or its input's shape are not known before running")
    if not axes:
        axes = [] if node.attributes.get("noop_with_empty_axes") else list(range(len(shape)))
    names = letters(len(shape))
    taken = [mark.format(n) if t in axes else n for t, n in enumerate(names)]
    left = ["1" if t in axes else n for t, n in enumerate(names) if t not in axes or node.attributes.get("keepdims", 1)]
    return Spec(f"{' '.join(taken)}, _ -> {' '.join(left)}")


def over_zeros(node: Node) -> Spec:
    """``a0 a1 a2, _ -> a0 1 a2``: zeros do not change the result, so that cutting zeroed positions is exact."""
    return _reduce(node, "{}")


def over_live(node: Node) -> Spec:
    """``a0 {a1} a2, _ -> a0 1 a2``: zeros do change the result, which is taken over the live positions."""
    return _reduce(node, "{{{}}}")


def arg_reduce(node: Node) -> Spec:
    """``a0 [a1] a2 -> a0 1 a2``: the result numbers the positions of the axis, which is fixed."""
    shape = node.in_shapes[0]
    if shape is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    axis, names = axis_of(node.attributes["axis"], len(shape)), letters(len(shape))
    left = ["1" if t == axis else n for t, n in enumerate(names) if t != axis or node.attributes["keepdims"]]
    return Spec(f"{' '.join(f'[{n}]' if t == axis else n for t, n in enumerate(names))} -> {' '.join(left)}")


def pool(node: Node) -> Spec:
    """``n c [y...] -> n c z..., n c z...``: the window goes over fixed axes.

    A second output numbers positions of the whole input. Where anything but a MaxUnpool of the same shape reads it,
    n and c are fixed too.
    """
    window = [int(k) for k in node.attributes["kernel_shape"]]
    sizes = {f"k~{len(window) - 1 - i}": k for i, k in enumerate(window)}
    shape = node.in_shapes[0]
    points = {1: shape} if shape is not None and len(node.outputs) > 1 else {}
    return Spec("n c [y...] -> n c z..., n c z...", sizes, points_out=points)


rule("ReduceSum ReduceL1 ReduceL2 ReduceSumSquare", over_zeros, Cost("a"))
rule("ReduceMean ReduceMax ReduceMin", over_live, Cost("a"), keeps=True)
rule("ReduceProd ReduceLogSum ReduceLogSumExp", over_live, Cost("a"))
rule("ArgMax ArgMin", arg_reduce, Cost("a"))
rule("MaxPool AveragePool", pool, Cost("n c z k"), keeps=True)
rule("LpPool", pool, Cost("n c z k"))
rule("GlobalAveragePool GlobalMaxPool", "n c {y...} -> n c z...", Cost("n c y"), keeps=True)
rule("GlobalLpPool", "n c {y...} -> n c z...", Cost("n c y"))
