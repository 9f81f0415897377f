"""Ops that order, number and address positions. An axis that is addressed by values is fixed; others pass."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, axes_of, axis_of, letters, refuse, rule, with_term


def gather_elements(node: Node) -> Spec:
    """``a0 [b] (a2 + q2), a0 i a2 -> a0 i a2``: the axis that is indexed is fixed.

    Along the others, indices may cover the first positions only.
    """
    return _elements(node, "i", 1)


def scatter_elements(node: Node) -> Spec:
    """``a0 [b] (a2 + q2), a0 [i] a2, a0 [i] a2 -> a0 b (a2 + q2)``: the axis that is indexed is fixed.

    Along the others, updates may cover the first positions only.
    """
    return _elements(node, "[i]", 2)


def _elements(node: Node, index: str, others: int) -> Spec:
    data, given = node.in_shapes[:2]
    if data is None or given is None:
        return refuse("unknown-shape", "the shape of its input or of its indices cannot be inferred")
    axis, names = axis_of(node.attributes["axis"], len(data)), letters(len(data))
    whole = [n if data[t] == given[t] or t == axis else f"({n} + q{t})" for t, n in enumerate(names)]
    sizes = {f"q{t}": data[t] - given[t] for t in range(len(data)) if t != axis and data[t] != given[t]}
    if any(size < 0 for size in sizes.values()):
        return refuse("index", "its indices cover more positions than there are")
    part = with_term(names, axis, index)
    inputs = ", ".join([with_term(whole, axis, "[b]"), *[part] * others])
    if others == 1:
        return Spec(f"{inputs} -> {part}", sizes)
    return Spec(f"{inputs} -> {with_term(whole, axis, 'b')}", sizes, cost=_reduced(node, "a i"))


def _reduced(node: Node, factors: str) -> Cost:
    """A plain scatter moves numbers; one with a reduction combines each with what is there."""
    return Cost(factors, int(node.attributes.get("reduction", "none") != "none"))


def gather_nd(node: Node) -> Spec:
    """``b0 [d0] [d1] r0, b0 i0 [k] -> b0 i0 r0``: the axes that are indexed are fixed."""
    data, index = node.in_shapes[:2]
    if data is None or index is None:
        return refuse("unknown-shape", "the shape of its input or of its indices cannot be inferred")
    batch = letters(int(node.attributes.get("batch_dims", 0)), "b")
    many, rest = letters(len(index) - 1 - len(batch), "i"), letters(len(data) - len(batch) - index[-1], "r")
    addressed = [f"[{n}]" for n in letters(index[-1], "d")]
    left = f"{' '.join([*batch, *addressed, *rest])}, {' '.join([*batch, *many, '[k]'])}"
    return Spec(f"{left} -> {' '.join([*batch, *many, *rest])}")


def scatter_nd(node: Node) -> Spec:
    """``[d0] [d1] r0, [i0] [k], [i0] r0 -> d0 d1 r0``: the axes that are indexed are fixed."""
    data, index = node.in_shapes[:2]
    if data is None or index is None:
        return refuse("unknown-shape", "the shape of its input or of its indices cannot be inferred")
    rest, many = letters(len(data) - index[-1], "r"), [f"[{n}]" for n in letters(len(index) - 1, "i")]
    addressed = letters(index[-1], "d")
    before = " ".join([*(f"[{n}]" for n in addressed), *rest])
    inputs = f"{before}, {' '.join([*many, '[k]'])}, {' '.join([*many, *rest])}"
    return Spec(f"{inputs} -> {' '.join([*addressed, *rest])}", cost=_reduced(node, "i r"))


def top_k(node: Node) -> Spec:
    """``a0 [a1] a2, _ -> a0 k a2, a0 k a2``: the second output numbers the positions of the axis, which is fixed."""
    shape = node.in_shapes[0]
    if shape is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    names = letters(len(shape))
    axis = axis_of(node.attributes["axis"], len(shape))
    after = with_term(names, axis, "k")
    return Spec(f"{with_term(names, axis, f'[{names[axis]}]')}, _ -> {after}, {after}")


def one_hot(node: Node) -> Spec:
    """``a0 a1, _, _ -> a0 k a1``: the new axis is fixed, for the indices number its positions."""
    shape = node.in_shapes[0]
    if shape is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    names = letters(len(shape))
    axis = axis_of(node.attributes["axis"], len(shape) + 1)
    return Spec(f"{' '.join(names)}, _, _ -> {' '.join([*names[:axis], 'k', *names[axis:]])}")


def cumulate(node: Node) -> Spec:
    """``a0 [a1] a2, _ -> a0 a1 a2``: the order of the positions along the axis counts, so that it is fixed."""
    shape = node.in_shapes[0]
    axes = axes_of(node.parameter("axis"), len(shape or ()))
    if shape is None or axes is None:
        return refuse("dynamic", "its axis or its input's shape is not known before running")
    names = letters(len(shape))
    return Spec(f"{with_term(names, axes[0], f'[{names[axes[0]]}]')}, _ -> {' '.join(names)}")


def compress(node: Node) -> Spec:
    """``a0 [b] a2, [m] -> a0 w a2``: the axis whose positions are selected is fixed; without one, all axes are."""
    shape, axis = node.in_shapes[0], node.attributes.get("axis")
    if shape is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    if axis is None:
        return Spec("[a...], [m] -> w")
    names = letters(len(shape))
    before, after = (with_term(names, axis_of(axis, len(shape)), term) for term in ("[b]", "w"))
    return Spec(f"{before}, [m] -> {after}")


def reverse_sequence(node: Node) -> Spec:
    """``[t] n a..., n -> t n a...``: the order of the positions in time counts, so that they are fixed."""
    names = ["n", "[t]"] if int(node.attributes["time_axis"]) == 1 else ["[t]", "n"]
    return Spec(f"{' '.join(names)} a..., n -> {' '.join(names).replace('[t]', 't')} a...")


rule("GatherElements", gather_elements, picks=True)
rule("GatherND", gather_nd, picks=True)
rule("Scatter ScatterElements", scatter_elements)
rule("ScatterND", scatter_nd)
rule("TopK", top_k, Cost("a"))
rule("OneHot", one_hot, Cost("a k"))
rule("CumSum CumProd", cumulate, Cost("a"))
rule("Trilu", "b... [m] [n], _ -> b... m n")
rule("ReverseSequence", reverse_sequence)
rule("Compress", compress, picks=True)
