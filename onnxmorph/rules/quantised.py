"""Quantised tensors: ``scale * (data - zero)``. Scales and zero points are cut with the channels that they belong to.

Quantising and dequantising change how a tensor is written down, as a cast does, and count nothing.
"""

from __future__ import annotations

from onnxmorph.graph import Node, Shape
from onnxmorph.rules.table import Cost, Quantised, Spec, Write, axis_of, letters, refuse, rule


def along(node: Node, index: int, *axes: str) -> str:
    """The axes of a scale or zero point: a value where it has one element, else its own axes, aligned to the right."""
    shape = node.in_shapes[index] if index < len(node.inputs) else None
    if shape is None or all(s == 1 for s in shape):
        return "_"
    return " ".join("1" if s == 1 else name for s, name in zip(shape, axes[len(axes) - len(shape) :], strict=True))


def linear(node: Node) -> Spec:
    """``a..., s, s -> a...``: one scale, one along an axis (cut with it), or one per block (whole blocks go).

    An axis of blocks whose last one is not full is fixed: blocks would not stay where they are.
    """
    shape, scale = node.in_shapes[:2]
    if shape is None or scale is None:
        return refuse("unknown-shape", "the shape of its input or of its scale cannot be inferred")
    names = letters(len(shape))
    axes = " ".join(names)
    if all(s == 1 for s in scale):
        return Spec(f"{axes}, _, _ -> {axes}")
    axis = axis_of(node.attributes.get("axis", 1), len(shape))
    if len(scale) == 1:
        if axis >= len(shape):
            return refuse("axis", "its axis is not one of its input")
        return Spec(f"{axes}, {names[axis]}, {names[axis]} -> {axes}")
    block = int(node.attributes.get("block_size") or 0)
    per_block, before, after = list(names), list(names), list(names)
    if block and scale[axis] * block == shape[axis]:
        before[axis], after[axis] = f"({names[axis]} [b])", f"({names[axis]} b)"
    else:
        per_block[axis], before[axis] = "[s]", f"[{names[axis]}]"
    steps = " ".join("1" if s == 1 and t != axis else n for t, (s, n) in enumerate(zip(scale, per_block, strict=True)))
    sizes = {"b": block} if "b" in after[axis] else {}
    return Spec(f"{' '.join(before)}, {steps}, {steps} -> {' '.join(after)}", sizes)


def _conv(node: Node, data: str, weight: str, out: str, order: tuple[int, ...], steps: tuple[int, ...]) -> Spec:
    """A convolution whose scales and zero points (``steps``) may stand along the output's channels."""
    inputs = {order[0]: data, order[1]: weight}
    if len(order) > 2:
        inputs[order[2]] = "(g o)"
    inputs |= {i: along(node, i, "(g o)") for i in steps}
    listed = ", ".join(inputs.get(i, "_") for i in range(max(inputs) + 1))
    return Spec(f"{listed} -> {out}", {"g": int(node.attributes["group"])}, (Write("group", ("g",)),))


def qlinear_conv(node: Node) -> Spec:
    """``n (g i) [y...], _, _, (g o) i [k...], (g o), (g o), _, _, (g o) -> n (g o) z...``"""
    return _conv(node, "n (g i) [y...]", "(g o) i [k...]", "n (g o) z...", (0, 3, 8), (4, 5))


def conv_integer(node: Node) -> Spec:
    """``n (g i) [y...], (g o) i [k...], _, (g o) -> n (g o) z...``"""
    return _conv(node, "n (g i) [y...]", "(g o) i [k...]", "n (g o) z...", (0, 1), (3,))


def operands(a: Shape | None, b: Shape | None) -> tuple[str, str, str] | None:
    """The axes of a matrix product's inputs and output; None where a shape is not known."""
    if a is None or b is None:
        return None
    if len(a) == 1:
        return ("k", "k", "") if len(b) == 1 else ("k", "b... k n", "b... n")
    return ("b... m k", "k", "b... m") if len(b) == 1 else ("b... m k", "b... k n", "b... m n")


def _product(node: Node, order: tuple[int, int], rows: tuple[int, ...], columns: tuple[int, ...]) -> Spec:
    """A matrix product whose scales and zero points may stand along the rows of A and the columns of B."""
    found = operands(node.in_shapes[order[0]], node.in_shapes[order[1]])
    if found is None:
        return refuse("unknown-shape", "the shape of an operand cannot be inferred")
    inputs = {order[0]: found[0], order[1]: found[1]}
    for i in (*rows, *columns):
        shape = node.in_shapes[i] if i < len(node.inputs) else None
        if shape is not None and len(shape) > 1 and any(s > 1 for s in shape):
            return refuse("quantised", "a scale or zero point is a matrix")
        inputs[i] = along(node, i, "m" if i in rows else "n")
    return Spec(f"{', '.join(inputs.get(i, '_') for i in range(max(inputs) + 1))} -> {found[2]}")


def qlinear_matmul(node: Node) -> Spec:
    """``b... m k, _, _, b... k n, n, n, _, _ -> b... m n``"""
    return _product(node, (0, 3), (1, 2), (4, 5))


def matmul_integer(node: Node) -> Spec:
    """``b... m k, b... k n, m, n -> b... m n``"""
    return _product(node, (0, 1), (2,), (3,))


WEIGHT = Quantised(0, 1, 2), Quantised(3, 4, 5)

rule("QuantizeLinear", linear, view=True, elementwise=True, quantised=[Quantised(None, 1, 2)])
rule("DequantizeLinear", linear, view=True, elementwise=True, quantised=[Quantised(0, 1, 2)])
# Its scale is that of the live positions.
rule("DynamicQuantizeLinear", "{a...} -> a..., _, _", Cost("a", 3), quantised=[Quantised(None)])
rule(
    "QLinearConv",
    qlinear_conv,
    Cost("n g o i k z", 2, macs=True),
    weights=[3],
    bias=8,
    quantised=[*WEIGHT, Quantised(8, 1, None, 4), Quantised(None, 6, 7)],
)
rule(
    "ConvInteger",
    conv_integer,
    Cost("n g o i k z", 2, macs=True),
    weights=[1],
    quantised=[Quantised(0, None, 2), Quantised(1, None, 3)],
)
rule(
    "QLinearMatMul",
    qlinear_matmul,
    Cost("b m n k", 2, macs=True),
    weights=[0, 3],
    quantised=[*WEIGHT, Quantised(None, 6, 7)],
)
rule(
    "MatMulInteger",
    matmul_integer,
    Cost("b m n k", 2, macs=True),
    weights=[0, 1],
    quantised=[Quantised(0, None, 2), Quantised(1, None, 3)],
)
