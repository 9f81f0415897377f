"""Peak memory: the largest set of tensors that are alive at once, with the ops in the order of the file.

A tensor lives from the op that writes it to the last one that reads it; graph inputs from the start, graph outputs to
the end. What only names or regroups axes (Reshape, Cast, QuantizeLinear) shares the memory of what it reads. No op
works in place. Parameters are not among it (``param_bytes``), nor what a kernel needs while it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.axes import Array
from onnxmorph.cost import Tensors, moves
from onnxmorph.graph import Shape
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


def peak(
    plans: Sequence[Plan],
    inputs: Sequence[str],
    outputs: Sequence[str],
    shapes: Mapping[str, Shape | None],
    tensors: Tensors,
) -> Peak:
    """Follow every tensor from its writer to its last reader.

    What a loop reads from outside lives until the loop is over, however early in its body it is read.
    """
    starts, ends = _runs(plans)
    source: dict[str, str] = {}  # what shares its memory, by name
    born: dict[str, int] = {n: 0 for n in inputs}
    dies: dict[str, int] = dict(born)
    found = {n: shape for n in inputs if (shape := shapes.get(n)) is not None}
    for step, plan in enumerate(plans):
        node = plan.node
        for name in (*node.inputs, *node.captured):
            root = source.get(name, name)
            if root in born:
                dies[root] = max(dies[root], step if born[root] >= starts[step] else ends[step])
        if not node.counted:
            continue
        for name, shape in zip(node.outputs, node.out_shapes, strict=True):
            if not name or shape is None:
                continue
            if not moves(plan):
                source[name] = source.get(node.inputs[0], node.inputs[0]) if node.inputs else name
                continue
            born[name] = dies[name] = step
            found[name] = shape
    dies |= {root: len(plans) - 1 for n in outputs if (root := source.get(n, n)) in born}
    names = tuple(found)
    sizes = Polynomials.of([tensors.bytes_of(n, found[n]) for n in names])
    first, last = (np.array([of[n] for n in names], np.int64) for of in (born, dies))
    return Peak(names, sizes, first, last, len(plans))


def _runs(plans: Sequence[Plan]) -> tuple[list[int], list[int]]:
    """The first and the last step of the run of steps inside bodies that each step is in; itself outside."""
    starts, ends = list(range(len(plans))), list(range(len(plans)))
    for step in range(1, len(plans)):
        if plans[step].node.inner and plans[step - 1].node.inner:
            starts[step] = starts[step - 1]
    for step in reversed(range(len(plans) - 1)):
        if plans[step].node.inner and plans[step + 1].node.inner:
            ends[step] = ends[step + 1]
    return starts, ends
