"""One node at a time: labels in, labels out, ties on the way. Knows equations, and no op.

The result of a node is its *plan*: the equation bound to its shapes, and the labels of every factor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from onnxmorph.axes import LONG, LONGEST, Channels, Labels, product, stack
from onnxmorph.errors import RuleError
from onnxmorph.graph import Node, Shape
from onnxmorph.notation import (
    Equation,
    Factor,
    Product,
    Sum,
    Term,
    bind,
    factors,
    size_of,
    solve_sizes,
)
from onnxmorph.rules import Cost, Rule, Spec

AxisLabels = tuple[Labels | None, ...]


@dataclass(frozen=True)
class Plan:
    """What analysis found out about a node.

    ``labels`` and ``sizes`` are per factor of the bound equation (plus the sizes that only the spec names).
    ``rule`` is None where there is none for the op, ``equation`` where there is none or it refuses the node.
    """

    node: Node
    rule: Rule | None
    spec: Spec
    equation: Equation | None
    sizes: Mapping[str, int]
    labels: Mapping[str, Labels | None]

    @property
    def cost(self) -> Cost | None:
        """What the node costs, in the factors of its equation."""
        return self.spec.cost or (self.rule.cost if self.rule else None)


@dataclass(frozen=True)
class Reason:
    """Why positions stay: a stable code, a sentence, and the tensors at which it arises."""

    code: str
    text: str
    at: tuple[str, ...] = ()


class Reasons:
    """Numbered reasons for being fixed: number 1 is the first."""

    def __init__(self) -> None:
        self.all: list[Reason] = [Reason("free", "")]

    def add(self, code: str, text: str, at: tuple[str, ...] = ()) -> int:
        """The number of a new reason."""
        self.all.append(Reason(code, text, at))
        return len(self.all) - 1


def propagate(
    node: Node,
    rule: Rule,
    spec: Spec,
    inputs: Sequence[AxisLabels | None],
    channels: Channels,
    reasons: Reasons,
) -> tuple[Plan, list[AxisLabels | None]]:
    """Apply a bound rule to the labels of a node's inputs.

    Args:
        node: the node; its shapes decide the ranks of the equation.
        rule: its entry in the table.
        spec: that entry bound to the node.
        inputs: per input the labels of its axes; None for a tensor without channels (absent, or integers).
        channels: is changed: what the node ties together is united there.
        reasons: is extended by the reasons that the node gives.

    Returns:
        the plan, and the labels of the outputs' axes.
    """
    shapes = (node.in_shapes, node.out_shapes)
    ranks_in, ranks_out = (tuple(-1 if s is None else len(s) for s in side) for side in shapes)
    equation = bind(spec.equation, (ranks_in, ranks_out))
    try:
        sizes = _sizes(spec.equation, node.in_shapes, node.out_shapes, tuple(spec.sizes.items()))
    except RuleError:  # once more, for a message that names the node
        sizes = solve_sizes(equation, shapes, spec.sizes, str(node))
    found = _Factors(node, sizes, channels, reasons)
    for axes, labels, shape in zip(equation.inputs, inputs, node.in_shapes, strict=False):
        if axes is None or shape is None:
            continue
        for axis, label, size in zip(axes, labels or [None] * len(axes), shape, strict=True):
            found.meet(axis, label, size)
    for one, other in spec.same:
        found.unite(one, found.labels.get(other))
    for name in sorted(equation.fixed & found.labels.keys()):
        found.hold(name, "positions", f"{node} depends on the positions of this axis")
    moving = {
        f.name
        for axes, dynamic in zip(equation.outputs, node.dynamic, strict=False)
        for t in (dynamic if axes else ())
        for f in factors((axes or ())[t])
    }
    for name in spec.fresh:
        if name in moving:  # how many there are is not known before running
            continue
        found.labels[name] = channels.fresh(n)[:, None] if channels.admits(n := sizes[name], 8) else found.too_long()
    for take in spec.takes:
        label = found.labels.get(take.of)
        found.labels[take.new] = label[take.index] if isinstance(label, np.ndarray) else label
    outputs: list[AxisLabels | None] = []
    for axes, shape in zip(equation.outputs, node.out_shapes, strict=False):
        outputs.append(None if axes is None or shape is None else tuple(map(found.compose, axes)))
        for label, size in zip(outputs[-1] or (), shape or (), strict=False):
            if isinstance(label, np.ndarray) and len(label) != size:
                message = f"{node}: an axis of {len(label)} positions is written with {size}"
                raise RuleError(message, code="rule-size")
    outputs += [None] * (len(node.outputs) - len(outputs))
    return Plan(node, rule, spec, equation, sizes, found.labels), outputs


@lru_cache(maxsize=4096)
def _sizes(
    text: str,
    in_shapes: tuple[Shape | None, ...],
    out_shapes: tuple[Shape | None, ...],
    known: tuple[tuple[str, int], ...],
) -> Mapping[str, int]:
    """`solve_sizes`, once per equation and shapes: networks repeat their blocks."""
    ranks = tuple(tuple(-1 if s is None else len(s) for s in side) for side in (in_shapes, out_shapes))
    return solve_sizes(bind(text, (ranks[0], ranks[1])), (in_shapes, out_shapes), dict(known), "")


class _Factors:
    """The labels of the factors of one node, met axis by axis."""

    def __init__(self, node: Node, sizes: Mapping[str, int], channels: Channels, reasons: Reasons) -> None:
        self.node, self.sizes, self.channels, self.reasons = node, sizes, channels, reasons
        self.labels: dict[str, Labels | None] = {}
        self._tie: int | None = None

    @property
    def tie_reason(self) -> int:
        if self._tie is None:
            self._tie = self.reasons.add("tied", f"{self.node} ties it to positions that must stay", self.node.tensors)
        return self._tie

    def hold(self, name: str, code: str, text: str) -> None:
        """Fix a factor, whatever its labels."""
        label = self.labels[name]
        number = self.reasons.add(code, text, self.node.tensors)
        if isinstance(label, np.ndarray):
            self.channels.fix(label, number)
        self.labels[name] = number

    def meet(self, term: Term, label: Labels | None, size: int) -> None:
        """One axis of an input: hand its labels to its factors."""
        if isinstance(term, Factor):
            if size != self.sizes[term.name]:  # one position serves all: it cannot go
                if isinstance(label, np.ndarray):
                    text = f"{self.node} broadcasts this axis of one position"
                    number = self.reasons.add("broadcast", text, self.node.tensors)
                    self.channels.fix(label, number)
                return
            self.unite(term.name, label)
            return
        parts = [size_of(each, self.sizes) for each in term.terms]
        if label is None or not term.terms:
            if isinstance(label, np.ndarray):
                text = f"{self.node} needs this axis of one position"
                self.channels.fix(label, self.reasons.add("single", text, self.node.tensors))
            for name in {f.name for f in factors(term)}:
                self.unite(name, None)
        elif isinstance(term, Product):
            for each, part, piece in zip(
                term.terms, parts, self.channels.split(label, parts, self.tie_reason), strict=True
            ):
                self.meet(each, piece, part)
        else:
            start = 0
            for each, part in zip(term.terms, parts, strict=True):
                self.meet(each, label if isinstance(label, int) else label[start : start + part], part)
                start += part

    def unite(self, name: str, label: Labels | None) -> None:
        if name not in self.labels or self.labels[name] is None:
            known = name in self.labels
            self.labels[name] = label
            if known and isinstance(label, np.ndarray):  # met before without labels: nothing there may go
                self.channels.fix(label, self.tie_reason)
            return
        before = self.labels[name]
        if label is None:
            if isinstance(before, np.ndarray):
                self.channels.fix(before, self.tie_reason)
            return
        assert before is not None
        self.channels.tie(before, label, self.tie_reason)
        if isinstance(label, int) and not isinstance(before, int):
            self.labels[name] = label

    def too_long(self) -> int:
        text = f"{self.node} makes an axis of more than {LONGEST:,} positions, or the model too many of them"
        return self.reasons.add("too-long", text, self.node.tensors)

    def compose(self, term: Term) -> Labels | None:
        """The labels of an axis of an output."""
        if isinstance(term, Factor):
            return self.labels.get(term.name)
        parts = [size_of(each, self.sizes) for each in term.terms]
        labels = [self.compose(each) for each in term.terms]
        size, moving = size_of(term, self.sizes), any(isinstance(each, np.ndarray) for each in labels)
        if moving and size > LONG and not self.channels.admits(size, 4):
            number = self.too_long()
            for each in labels:
                if isinstance(each, np.ndarray):
                    self.channels.fix(each, number)
            return number
        return stack(labels, parts) if isinstance(term, Sum) else product(labels, parts)
