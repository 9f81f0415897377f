"""The layers of a network: ops with weights, in the order of the file, and how wide they are at given widths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array
from onnxmorph.notation import Term, factors
from onnxmorph.polynomial import Polynomial, Terms, Widths, multiply
from onnxmorph.propagate import Plan


@dataclass(frozen=True)
class Layer:
    """An op with weights: the number of its plan, and its numbers of channels in the group widths.

    ``weight`` is the parameter that its first weight is, or was computed of. ``groups`` are the numbers of the groups
    that its output channels are of; none where these stay, for the reason with the code ``stays``.
    """

    number: int
    plan: Plan
    weight: str
    groups: tuple[int, ...]
    inward: Terms
    outward: Terms
    stays: str

    @property
    def name(self) -> str:
        """That of the node, or of what it writes."""
        return self.plan.node.name or self.plan.node.outputs[0]

    @cached_property
    def _polynomials(self) -> tuple[Polynomial, Polynomial]:
        return Polynomial.of(self.inward), Polynomial.of(self.outward)

    def widths(self, at: Widths) -> tuple[int, int]:
        """Channels that it reads and that it writes."""
        read, written = self._polynomials
        return read.value(at), written.value(at)


def layers(analysis: Analysis) -> Iterator[Layer]:
    """Convolutions, products, recurrent layers and embeddings whose weights are parameters."""
    # Parameters and what is computed of them alone, transposed or dequantised; with the first parameter in it.
    weights = {name: name for name in analysis.parameters}
    stays = {(each.tensor, each.axis): each.code for each in analysis.fixed}
    for number, plan in enumerate(analysis.plans):
        node = plan.node
        given = [name for name in node.inputs if name]
        if given and all(name in weights or name in analysis.graph.known for name in given):
            first = next((weights[name] for name in given if name in weights), "")
            weights.update(dict.fromkeys(node.outputs, first))
            continue
        at = _weight(plan, weights)
        if at is None:
            continue
        codes = (stays.get((node.inputs[at], axis)) for axis in range(len(node.in_shapes[at] or ())))
        yield _layer(analysis, number, plan, weights, at, next(filter(None, codes), ""))


def _weight(plan: Plan, weights: Mapping[str, str]) -> int | None:
    """The input that is a weight of more than one axis."""
    rule, node = plan.rule, plan.node
    if rule is None:
        return None
    places = (*rule.weights, *([0] if rule.picks else []))
    found = (i for i in places if i < len(node.inputs) and node.inputs[i] in weights)
    return next((i for i in found if len(node.in_shapes[i] or ()) > 1), None)


def _layer(analysis: Analysis, number: int, plan: Plan, weights: Mapping[str, str], at: int, stays: str) -> Layer:
    """With the channels that the weight is summed over, and those that it makes."""
    node, equation, weight = plan.node, plan.equation, weights[plan.node.inputs[at]]
    if equation is None:
        stays = plan.spec.refuse[0] if plan.spec.refuse else stays
        return Layer(number, plan, weight, (), {(): 0}, {(): 0}, stays)
    inputs = [i for i, name in enumerate(node.inputs) if name and i < len(equation.inputs)]
    read = _names(equation.inputs[i] or () for i in inputs if node.inputs[i] not in weights)
    own = _names(equation.inputs[i] or () for i in inputs if node.inputs[i] in weights)
    written = _names(axes or () for axes in equation.outputs)
    inward: Terms = {(): 1}
    outward: Terms = {(): 1}
    groups: dict[int, None] = {}
    for i in (i for i in inputs if node.inputs[i] not in weights):
        for _, terms in _axes(analysis, node.inputs[i], equation.inputs[i], node.in_shapes[i], (own & read) - written):
            inward = multiply(inward, terms)
    outputs = [j for j, name in enumerate(node.outputs) if name and j < len(equation.outputs)]
    for j in outputs[:1]:
        made = (own & written) - read
        for rows, terms in _axes(analysis, node.outputs[j], equation.outputs[j], node.out_shapes[j], made):
            outward = multiply(outward, terms)
            found = () if rows is None else np.unique(analysis.group_of[rows])
            groups.update(dict.fromkeys(int(g) for g in found if g >= 0))
    return Layer(number, plan, weight, tuple(groups), inward, outward, "" if groups else stays)


def _names(many: Iterable[Iterable[Term]]) -> set[str]:
    return {factor.name for axes in many for axis in axes for factor in factors(axis)}


def _axes(
    analysis: Analysis,
    tensor: str,
    axes: tuple[Term, ...] | None,
    shape: tuple[int, ...] | None,
    names: set[str],
) -> Iterator[tuple[Array | None, Terms]]:
    """The channels and the size of every axis of a tensor that has a factor of these names."""
    every = analysis.rows.get(tensor) or (None,) * len(shape or ())
    for axis, rows, size in zip(axes or (), every, shape or (), strict=True):
        if any(factor.name in names for factor in factors(axis)):
            yield rows, analysis.sizes(rows, size)
