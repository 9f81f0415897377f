"""Which ops run as one kernel, what a kernel computes, and what it moves.

A kernel is one op, its *anchor*, with the functions of single positions that follow it: activations, sums with a skip,
norms with running statistics. An op joins the kernel of what it reads if all else that it reads can be there before the
kernel starts, and if it writes one element for each that it reads from the kernel. Ops that only name or regroup axes
are in no kernel: what reads their result reads what they read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import onnx_ir as ir

from onnxmorph.analysis import Analysis
from onnxmorph.buffers import moves
from onnxmorph.graph import Node, Shape
from onnxmorph.polynomial import Terms, add, multiply
from onnxmorph.propagate import Plan
from onnxmorph.rules.table import Quantised

ELSEWHERE = -1  # reads what leaves the graph, or enters or leaves a body


@dataclass(frozen=True, eq=False)
class Kernel:
    """Ops that run as one: their numbers in ``analysis.plans``, the anchor first.

    ``flops`` and ``bytes`` are terms in the group widths, for all ``times`` that it runs. ``bytes`` are those read from
    outside and written for others. ``dtype`` is the type that the anchor computes in.
    """

    steps: tuple[int, ...]
    dtype: ir.DataType
    flops: Terms
    bytes: Terms
    times: int


def kernels(analysis: Analysis) -> tuple[Kernel, ...]:
    """The kernels of a model, in the order in which their anchors stand."""
    found = _Fusion(analysis)
    return tuple(found.kernel(k) for k in range(len(found.steps)))


class _Fusion:
    """One pass over the plans.

    What views make from a tensor is that tensor, their *root*. ``direct[tensor]`` are the kernels whose results it is
    made of, and ``before[kernel]`` all that have to run before one, as the bits of a number.
    """

    def __init__(self, analysis: Analysis) -> None:
        self.analysis, graph = analysis, analysis.graph
        self.root: dict[str, str] = {}
        self.writer: dict[str, int] = {}  # of roots, the kernel
        self.readers: dict[str, set[int]] = {}  # of roots, the kernels
        self.stored: dict[str, str] = {}  # by the name of what is dequantised, what it is made from
        self.direct: dict[str, int] = {}
        self.steps: list[list[int]] = []
        self.before: list[int] = []
        self.data = {*graph.inputs, *(n for n in analysis.parameters if analysis.roles.get(n) != "constant")}
        for step, plan in enumerate(analysis.plans):
            if moves(plan):
                self.run(step, plan)
            else:
                self.view(plan.node, plan.rule.quantised if plan.rule else ())
        for name in graph.outputs:
            self.read(name, ELSEWHERE)

    def run(self, step: int, plan: Plan) -> None:
        """Make an op part of a kernel that there is, or of a new one."""
        node, needs = plan.node, self.needs(plan.node)
        k = self.joins(plan, needs)
        if k is None:
            k = len(self.steps)
            self.steps.append([])
            self.before.append(0)
        self.steps[k].append(step)
        self.precede(k, needs & ~(1 << k))
        for name in (*node.inputs, *node.captured):
            self.read(name, k)
        for name in filter(None, node.outputs):
            self.writer[name] = k
            self.direct[name] = 1 << k
            self.data.add(name)

    def view(self, node: Node, quantised: Sequence[Quantised]) -> None:
        """Follow what moves nothing: a view of data, arithmetic on sizes, the border of a body."""
        needs, outputs = self.needs(node), [name for name in node.outputs if name]
        self.direct |= dict.fromkeys(outputs, needs)
        if not node.counted:
            return
        if node.crossing is not None:
            self.data.update(outputs)
            for name in node.inputs:
                self.read(name, ELSEWHERE)
            return
        of = next(iter(node.inputs), "")
        root = self.root.get(of, of)
        stored = self.stored.get(of)
        for name in outputs:
            self.root[name] = root
            if stored or any(q.data == 0 for q in quantised):
                self.stored[name] = stored or of
        self.data.update(outputs if of in self.data else ())

    def needs(self, node: Node) -> int:
        """The kernels whose results a node reads."""
        return reduce(or_, (self.direct.get(n, 0) for n in (*node.inputs, *node.captured)), 0)

    def read(self, name: str, kernel: int) -> None:
        self.readers.setdefault(self.root.get(name, name), set()).add(kernel)

    def joins(self, plan: Plan, needs: int) -> int | None:
        """The last kernel that an op can be part of; None where it starts one."""
        node = plan.node
        if not follows(plan):
            return None
        sources = (
            self.writer.get(self.root.get(name, name), ELSEWHERE)
            for name, shape in zip(node.inputs, node.in_shapes, strict=True)
            if shape == node.out_shapes[0]
        )
        fit = [k for k in sources if k != ELSEWHERE and self.together(k, node) and not self.after(k, needs)]
        return max(fit, default=None)

    def together(self, k: int, node: Node) -> bool:
        """Whether a kernel and an op run equally often, and both inside a body or both outside."""
        other = self.analysis.plans[self.steps[k][0]].node
        return (other.inner, other.times) == (node.inner, node.times)

    def after(self, k: int, needs: int) -> bool:
        """Whether any of these, other than k itself, waits for kernel k."""
        return any(self.before[j] >> k & 1 for j in _bits(needs))

    def precede(self, k: int, first: int) -> None:
        """Enter that these run before kernel k, and so before all that wait for it."""
        first |= reduce(or_, (self.before[j] for j in _bits(first)), 0)
        if first & ~self.before[k]:
            old = len(self.steps[k]) > 1  # nothing waits for a new one yet
            for j in range(len(self.before)) if old else (k,):
                if j == k or self.before[j] >> k & 1:
                    self.before[j] |= first

    def kernel(self, k: int) -> Kernel:
        """What a kernel computes and moves."""
        plans = [self.analysis.plans[step] for step in self.steps[k]]
        flops = [self.analysis.op_costs["flops"][step].terms() for step in self.steps[k]]
        moved = multiply(add([*self.reads(k, plans), *self.writes(k, plans)]), {(): plans[0].node.times})
        return Kernel(tuple(self.steps[k]), self.computes_in(plans[0]), add(flops), moved, plans[0].node.times)

    def reads(self, k: int, plans: Sequence[Plan]) -> Iterator[Terms]:
        """The bytes of every tensor from outside, each once."""
        seen = set[str]()
        for plan in plans:
            node, rule = plan.node, plan.rule
            for i, (name, shape) in enumerate(zip(node.inputs, node.in_shapes, strict=True)):
                root = self.root.get(name, name)
                if name not in self.data or shape is None or (rule is not None and i in rule.unread):
                    continue
                if root in seen or self.writer.get(root) == k:
                    continue
                seen.add(root)
                whole = node.out_shapes[0] if i == 0 and rule is not None and rule.picks else None
                yield self.bytes_of(root, name, shape) if whole is None else self.bytes_of(root, node.outputs[0], whole)

    def writes(self, k: int, plans: Sequence[Plan]) -> Iterator[Terms]:
        """The bytes of every tensor that is read elsewhere, or by nobody."""
        for node in (plan.node for plan in plans):
            for name, shape in zip(node.outputs, node.out_shapes, strict=True):
                if name and shape is not None and self.readers.get(name) != {k}:
                    yield self.bytes_of(name, name, shape)

    def bytes_of(self, root: str, name: str, shape: Shape) -> Terms:
        tensors = self.analysis.tensors
        return multiply(tensors.elements(name, shape), {(): tensors.bytes_each(root)})

    def computes_in(self, plan: Plan) -> ir.DataType:
        """The type of its first input; for a product of dequantised numbers, that in which they are stored."""
        name = next((n for n in (*plan.node.inputs, *plan.node.outputs) if n), "")
        stored = self.stored.get(name, name) if plan.rule is not None and plan.rule.weights else name
        return self.analysis.graph.dtypes.get(stored, ir.DataType.FLOAT)


def follows(plan: Plan) -> bool:
    """Whether an op maps single elements as they come: a function of positions, or a norm of known statistics."""
    if plan.rule is None or plan.equation is None or plan.equation.averaged:
        return False
    return plan.rule.elementwise or "state" in plan.rule.roles.values()


def _bits(number: int) -> Iterator[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest
