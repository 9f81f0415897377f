"""Peak memory: the largest set of tensors that are alive at once, with the ops in the order of the file.

A tensor lives from the op that writes it to the last one that reads it, and not its shape alone; graph inputs from the
start, graph outputs to the end. What a body reads from outside lives until its node is over. Views take no memory
(``buffers``), and no op works in place. Parameters are not among it (``param_bytes``), nor what a kernel needs while
it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.axes import Array
from onnxmorph.cost import Tensors
from onnxmorph.graph import Graph
from onnxmorph.polynomial import Number, Polynomials, Widths
from onnxmorph.propagate import Plan


@dataclass(frozen=True, eq=False)
class Peak:
    """The largest of the live sets of all steps; a polynomial for each tensor's bytes.

    Tensor t (``names[t]``) is alive from step ``born[t]`` to step ``dies[t]``, both included. Step s is plan s.
    """

    names: tuple[str, ...]
    bytes: Polynomials
    born: Array
    dies: Array
    steps: int

    def alive(self, widths: Widths) -> NDArray[Any]:
        """The bytes alive at every step, ``[steps]``; `widths` is ``[groups]``."""
        sizes = self.bytes.values(widths)
        change = np.zeros(self.steps + 1, sizes.dtype)
        np.add.at(change, self.born, sizes)
        np.subtract.at(change, self.dies + 1, sizes)
        return change.cumsum()[:-1]

    def value(self, widths: Widths) -> Number:
        """The bytes alive at the fullest step, halves rounded up."""
        return int(np.ceil(self.alive(widths).max(initial=0)))

    def sweep(self, many: Widths) -> NDArray[np.float64]:
        """The value at each of many widths, ``[n, groups] -> [n]``."""
        sizes = self.bytes.whole.each(many).T
        change = np.zeros((self.steps + 1, len(many)))
        np.add.at(change, self.born[self.bytes.rows], sizes)
        np.subtract.at(change, self.dies[self.bytes.rows] + 1, sizes)
        result: NDArray[np.float64] = np.ceil(change.cumsum(0)[:-1].max(0, initial=0))
        return result

    def gradient(self, widths: Widths) -> NDArray[Any]:
        """The bytes that one channel of every group adds to the fullest step (the first of several), ``[groups]``."""
        return self.bytes.gradient(widths, self._at(self.step(widths)))

    def step(self, widths: Widths) -> int:
        """The fullest step, the first of several."""
        return int(self.alive(widths).argmax()) if self.steps else 0

    def live_set(self, widths: Widths) -> list[tuple[str, Number]]:
        """The tensors alive at the fullest step and their bytes, largest first."""
        sizes = self.bytes.values(widths)
        there = np.flatnonzero(self._at(self.step(widths)))
        return sorted(((self.names[t], sizes[t].item()) for t in there), key=lambda item: -item[1])

    def _at(self, step: int) -> NDArray[np.int64]:
        return ((self.born <= step) & (step <= self.dies)).astype(np.int64)


def peak(plans: Sequence[Plan], graph: Graph, tensors: Tensors) -> Peak:
    """Follow every tensor from its writer to its last reader."""
    loops = _Bodies(plans)
    born: dict[str, int] = {n: 0 for n in graph.inputs}
    dies: dict[str, int] = dict(born)
    home: dict[str, tuple[str, ...]] = {n: () for n in graph.inputs}
    found = {n: shape for n in graph.inputs if (shape := graph.shapes.get(n)) is not None}
    for step, plan in enumerate(plans):
        node = plan.node
        read = () if plan.rule is not None and plan.rule.reads_shape else (*node.inputs, *node.captured)
        for root in (r for n in read for r in tensors.buffers.of(n)):
            if root in born:
                dies[root] = max(dies[root], loops.end(step, home[root]))
        for name, shape in zip(node.outputs, node.out_shapes, strict=True):
            if node.counted and name and shape is not None and tensors.buffers.of(name) == (name,):
                born[name], home[name] = loops.start(step)
                dies[name] = step
                found[name] = shape
    last = max(len(plans) - 1, 0)
    dies |= {root: last for n in graph.outputs for root in tensors.buffers.of(n) if root in born}
    names = tuple(found)
    sizes = Polynomials.of([tensors.bytes_of(n, found[n]) for n in names])
    first, until = (np.array([of[n] for n in names], np.int64) for of in (born, dies))
    return Peak(names, sizes, first, until, last + 1)


class _Bodies:
    """The first and the last step of every node with bodies."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self.nodes = [plan.node for plan in plans]
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        for step, node in enumerate(self.nodes):
            for name in node.around:
                self.first.setdefault(name, step)
                self.last[name] = step

    def start(self, step: int) -> tuple[int, tuple[str, ...]]:
        """When what a step writes begins to live, and in which bodies: what iterations stack up, with the first."""
        node, crossing = self.nodes[step], self.nodes[step].crossing
        if crossing is None or crossing.inward:
            return step, node.around
        return (step if crossing.axis is None else self.first[node.around[-1]]), node.around[:-1]

    def end(self, step: int, home: tuple[str, ...]) -> int:
        """Until when a tensor of the bodies `home` lives that a step reads: until the end of all bodies in between."""
        around = self.nodes[step].around
        entered = [name for name in around if name not in home]
        return self.last[entered[0]] if entered else step
