"""What quantised parameters stand for: ``scale * (data - zero)``, and which numbers stand for 0.

The op that reads a parameter says which of its inputs are the scale and the zero point, and its equation along which
axes they stand. Where the parameter is moved first, they are followed if they are single numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.notation import Product, Term
from onnxmorph.propagate import Plan
from onnxmorph.weights import Index, part_of, pieces


@dataclass(frozen=True)
class Steps:
    """Scale and zero point of a quantised tensor, in shapes that broadcast against it."""

    scale: NDArray[Any]
    zero: NDArray[Any]


PLAIN = Steps(np.ones(()), np.zeros(()))


def steps_of(analysis: Analysis) -> Mapping[str, Steps]:
    """Scale and zero point of the tensors that ops read as quantised, by name; without those that are not known."""
    found: dict[str, Steps] = {}
    for plan in reversed(analysis.plans):
        if plan.rule is None or plan.equation is None:
            continue
        for q in plan.rule.quantised:
            if q.data is None or q.data >= len(plan.node.inputs):
                continue
            scale = _values(analysis, plan, q.data, q.scale, PLAIN.scale)
            zero = _values(analysis, plan, q.data, q.zero, PLAIN.zero)
            times = _values(analysis, plan, q.data, q.times, PLAIN.scale)
            if scale is not None and zero is not None and times is not None:
                found.setdefault(plan.node.inputs[q.data], Steps(scale * times, zero))
        steps = found.get(plan.node.outputs[0], PLAIN)
        if plan.rule.keeps and steps is not PLAIN and steps.scale.size == steps.zero.size == 1:
            for name in plan.node.inputs:
                found.setdefault(name, Steps(steps.scale.reshape(()), steps.zero.reshape(())))
    return found


def real(analysis: Analysis, name: str, steps: Mapping[str, Steps]) -> NDArray[np.float64]:
    """The values of a parameter; of a quantised one those that it stands for."""
    array = analysis.graph.weights(name).astype(np.float64)
    if not analysis.parameters[name].quantised:
        return array
    of = steps.get(name, PLAIN)
    result: NDArray[np.float64] = (array - of.zero) * of.scale
    return result


def real_pieces(
    analysis: Analysis, name: str, steps: Mapping[str, Steps]
) -> Iterator[tuple[Index, NDArray[np.float64]]]:
    """As `real`, in parts, each with its place: one part is in memory at a time, and belongs to the caller."""
    of = steps.get(name, PLAIN) if analysis.parameters[name].quantised else PLAIN
    for index, piece in pieces(analysis.graph.tensor(name), name):
        array = piece.astype(np.float64)
        if of is not PLAIN:
            array = (array - part_of(of.zero, index)) * part_of(of.scale, index)
        yield index, array


def stored(analysis: Analysis) -> Mapping[str, str]:
    """By the name of what is dequantised (or quantised), the parameter that it is made from."""
    found: dict[str, str] = {}
    for plan in analysis.plans:
        if plan.rule is not None and plan.rule.view and plan.rule.quantised:
            source = found.get(plan.node.inputs[0], plan.node.inputs[0])
            if source in analysis.parameters:
                found[plan.node.outputs[0]] = source
    return found


def _values(analysis: Analysis, plan: Plan, data: int, index: int | None, absent: NDArray[Any]) -> NDArray[Any] | None:
    """The values of a scale or zero point, aligned with the tensor that it belongs to; None if it is not known."""
    node, graph = plan.node, analysis.graph
    name = node.inputs[index] if index is not None and index < len(node.inputs) else ""
    if index is None or not name:
        return absent
    if name not in graph.parameters and name not in graph.sums:
        return None
    array = graph.weights(name).astype(np.float64)
    assert plan.equation is not None
    if array.size == 1:
        return array.reshape(())
    if max(index, data) >= len(plan.equation.inputs):  # more inputs than the op has
        return None
    axes, target = plan.equation.inputs[index], plan.equation.inputs[data]
    shape = node.in_shapes[data]
    return None if axes is None or target is None or shape is None else _aligned(array, axes, target, shape)


def _aligned(
    array: NDArray[np.float64], axes: tuple[Term, ...], target: tuple[Term, ...], shape: tuple[int, ...]
) -> NDArray[np.float64] | None:
    """Stretched to an axis for every axis of the target; one number of a block serves all of it."""
    sizes = dict(zip(axes, array.shape, strict=True))
    inner = [term.terms[0] if isinstance(term, Product) and term.terms else term for term in target]
    found = [sizes.get(term, sizes.get(first, 1)) for term, first in zip(target, inner, strict=True)]
    if prod(found) != array.size:  # blocks of which the last is not full
        return None
    result = array.reshape(found)
    for t, (size, whole) in enumerate(zip(found, shape, strict=True)):
        if 1 < size < whole:
            result = np.repeat(result, whole // size, t)
    return result
