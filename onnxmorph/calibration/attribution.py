"""Which kernel of a network the time of an optimised node belongs to.

The runtime fuses ops, renames them, and lays tensors out anew between them. What it makes still leads back: a node is
named after the tensor that it used to write, or after the node that it was. Its ops are those between that tensor and
what earlier nodes have taken; the dearest of them says which kernel it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats
from onnxmorph.latency.kernels import Kernel

LAYOUT = ("_nchwc", "_nhwc")  # what the runtime appends to the names of nodes that it lays out anew
NOWHERE = -1


def attribute(analysis: Analysis, kernels: Sequence[Kernel], nodes: Sequence[onnx.NodeProto]) -> Array:
    """The kernel of every optimised node, ``[nodes]``; -1 where nothing leads to one.

    A node that only moves data for another (a new layout, a shape) belongs to the one that reads it, else to the one
    that wrote it.
    """
    own = _Own(analysis, kernels)
    found = [own.take(node) for node in nodes]
    readers: dict[str, int] = {}
    for j in reversed(range(len(nodes))):
        if found[j] == NOWHERE:
            found[j] = next((readers[o] for o in nodes[j].output if o in readers), NOWHERE)
        readers.update((name, found[j]) for name in nodes[j].input if found[j] != NOWHERE)
    writers: dict[str, int] = {}
    for j, node in enumerate(nodes):
        if found[j] == NOWHERE:
            found[j] = next((writers[i] for i in node.input if writers.get(i, NOWHERE) != NOWHERE), NOWHERE)
        writers.update(dict.fromkeys(node.output, found[j]))
    return np.array(found, np.int64)


def per_kernel(owners: Array, seconds: Floats, count: int) -> Floats:
    """Seconds of every kernel, ``[count]``, from those of optimised nodes."""
    mine = owners != NOWHERE
    return np.asarray(np.bincount(owners[mine], seconds[mine], count), float)


class _Own:
    """Follows the optimised nodes in order; ``claimed`` are the ops that earlier ones have taken."""

    def __init__(self, analysis: Analysis, kernels: Sequence[Kernel]) -> None:
        self.analysis = analysis
        self.writer = {o: step for step, plan in enumerate(analysis.plans) for o in plan.node.outputs if o}
        self.named = {plan.node.name: plan.node.outputs[0] for plan in analysis.plans if plan.node.name}
        self.kernel = {step: k for k, kernel in enumerate(kernels) for step in kernel.steps}
        costs = [analysis.op_costs[name] for name in ("macs", "flops")]
        self.dear = [tuple(each[s].value(analysis.widths) for each in costs) for s in range(len(analysis.plans))]
        self.original: dict[str, str] = {}  # tensors of the optimised graph by those of the model
        self.claimed: set[int] = set()

    def take(self, node: onnx.NodeProto) -> int:
        reads = [self.original.get(name, name) for name in node.input if name]
        writes = self.written(node)
        if writes is None or writes in reads:  # moves data only
            source = next((name for name in reads if name in self.writer), None)
            self.original.update({o: source for o in node.output} if source else {})
            return NOWHERE
        for name in node.output:
            self.original.setdefault(name, writes)
        mine, todo = set[int](), [writes]
        while todo:
            step = self.writer.get(todo.pop())
            if step is not None and step not in mine and step not in self.claimed:
                mine.add(step)
                todo += [n for n in self.analysis.plans[step].node.inputs if n not in reads]
        self.claimed |= mine
        anchor = max(mine, key=lambda step: (self.dear[step], -step), default=self.writer[writes])
        return self.kernel.get(anchor, NOWHERE)

    def written(self, node: onnx.NodeProto) -> str | None:
        """The tensor of the model that a node writes, by the names of its outputs or by its own."""
        bare = node.name
        for suffix in LAYOUT:
            bare = bare.removesuffix(suffix)
        for name in (*node.output, bare):
            if name in self.writer:
                return str(name)
        return next((self.named[name] for name in (bare, bare.split("/")[0]) if name in self.named), None)
