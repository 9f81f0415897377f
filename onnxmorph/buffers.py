"""Which tensors share memory, and in how many bytes their numbers are held there.

What only names or regroups axes (Reshape) or converts numbers (Cast, QuantizeLinear) is a view: it writes nothing, and
its output is in the memory of its input. A conversion is taken for a part of the op before it, or behind it, as
runtimes fuse them: what is only read converted is held in the narrower of the two types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxmorph.polynomial import Number
from onnxmorph.propagate import Plan

UNKNOWN = 4  # bytes of a number whose type is not known


@dataclass(frozen=True)
class Buffers:
    """Per tensor that is a view ``roots``, the tensors in whose memory it is; per root ``each``, the bytes of a number.

    There are several roots where branches meet.
    """

    roots: Mapping[str, tuple[str, ...]]
    each: Mapping[str, Number]

    def of(self, name: str) -> tuple[str, ...]:
        """The tensors in whose memory a tensor is: itself, unless it is a view."""
        return self.roots.get(name, (name,))

    def bytes_each(self, name: str) -> Number:
        """The bytes of one number of a tensor, where it is held."""
        return max(self.each.get(root, UNKNOWN) for root in self.of(name))


def moves(plan: Plan) -> bool:
    """Whether an op reads and writes data: arithmetic on sizes does not, nor a view, nor the border of a body."""
    return plan.node.counted and plan.node.crossing is None and not (plan.rule and plan.rule.view)


def shared(plan: Plan) -> tuple[str, ...]:
    """The inputs in whose memory the first output of an op is; none where it has memory of its own.

    In a loop a state has memory of its own, for each iteration reads what the one before wrote; so has what iterations
    stack up. Behind the loop the state is in the memory of what the last iteration wrote.
    """
    node, crossing = plan.node, plan.node.crossing
    if not node.counted or moves(plan):
        return ()
    if crossing is None:
        return node.inputs[:1]
    if crossing.state:
        return () if crossing.inward else node.inputs[1:2]
    return () if crossing.axis is not None and not crossing.inward else node.inputs[: crossing.meet]


def buffers_of(
    plans: Sequence[Plan], first: Iterable[str], last: Iterable[str], dtypes: Mapping[str, ir.DataType]
) -> Buffers:
    """Follow views from input to output, and types from reader to writer.

    Args:
        plans: of all nodes, in order.
        first: tensors that are there before the first op; they are held in the type that they have,
        last: as are the outputs of the graph.
        dtypes: the types of tensors.
    """
    roots: dict[str, tuple[str, ...]] = {}
    there, fixed = set(first), {*first, *last}
    for plan in plans:
        there.update(plan.node.outputs if plan.node.counted else ())
        sources = [n for n in shared(plan) if n in there]
        if sources:
            roots[plan.node.outputs[0]] = tuple(dict.fromkeys(r for n in sources for r in roots.get(n, (n,))))
    own = {name: _bytes(kind) for name, kind in dtypes.items()}
    each, widest = dict(own), dict[str, Number]()
    for plan in reversed(plans):
        node, views = plan.node, shared(plan)
        for name in node.outputs:
            if name in widest and name not in fixed:
                each[name] = min(own.get(name, UNKNOWN), widest[name])
        if plan.rule is not None and plan.rule.reads_shape:
            continue
        for name in (*node.inputs, *node.captured):
            reads = each.get(node.outputs[0], UNKNOWN) if name in views else own.get(name, UNKNOWN)
            widest[name] = max(widest.get(name, 0), reads)
    return Buffers(roots, each)


def _bytes(kind: ir.DataType) -> Number:
    """Bytes of one element; half a byte for numbers of four bits. A text counts as a reference to it."""
    if kind == ir.DataType.UNDEFINED:
        return UNKNOWN
    bits = 64 if kind == ir.DataType.STRING else kind.bitwidth
    return bits // 8 if bits % 8 == 0 else bits / 8
