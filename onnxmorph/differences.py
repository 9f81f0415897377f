"""Two networks side by side, or what structures make of them: widths, costs, parameters and ops."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from onnxmorph.analysis import Analysis, analyze
from onnxmorph.graph import Node, Shape
from onnxmorph.groups import Group
from onnxmorph.model import Source
from onnxmorph.structure import Structure

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """One of two: ``widths`` by group, ``costs``, and of a model ``parameters`` and ``ops`` too.

    An op is its type and what it reads, by its name. ``kind`` is ``model`` or ``structure``.
    """

    name: str
    kind: str
    fingerprint: str
    widths: Mapping[str, int]
    costs: Mapping[str, float]
    parameters: Mapping[str, Shape]
    ops: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Change(Generic[T]):
    """What both or one of two have under a name; None where it is not there."""

    name: str
    before: T | None
    after: T | None

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return self.before == self.after


@dataclass(frozen=True)
class Difference:
    """Two sides, and every name that either has. Where a side is a structure, ``parameters`` and ``ops`` are empty."""

    before: Side
    after: Side
    costs: tuple[Change[float], ...]
    widths: tuple[Change[int], ...]
    parameters: tuple[Change[Shape], ...]
    ops: tuple[Change[tuple[str, ...]], ...]

    @property
    def same(self) -> bool:
        """Whether nothing changed; weights are not looked at."""
        every: tuple[Change[Any], ...] = (*self.costs, *self.widths, *self.parameters, *self.ops)
        return all(change.same for change in every)


Comparable = Source | Analysis | Structure


def diff(before: Comparable, after: Comparable, *, names: tuple[str, str] | None = None) -> Difference:
    """Compare two models, two structures, or a model and a structure.

    Groups and tensors are the same where they have the same name, as in a model and what `shrink` made of it. Beside a
    structure a model is analysed under the boundaries of the structure; costs that a structure does not hold are
    counted where the other side is the model that it was made from.

    Args:
        before: a model, its analysis, or a structure.
        after: the same.
        names: what the two are called.

    Raises:
        ModelError: a model cannot be read.
    """
    given = (before, after)
    bounds = next((each.bounds for each in given if isinstance(each, Structure)), None)
    read = [each if isinstance(each, Structure | Analysis) else analyze(each, bounds=bounds) for each in given]
    models = {each.graph.fingerprint: each for each in read if isinstance(each, Analysis)}
    one, other = (_side(each, models) for each in read)
    if names is not None:
        one, other = (replace(side, name=name) for side, name in zip((one, other), names, strict=True))
    both = one.kind == other.kind == "model"
    if both:
        groups = {g.id: g for each in read if isinstance(each, Analysis) for g in each.groups}
        one, other = (replace(a, widths={**_left(a, b, groups), **a.widths}) for a, b in ((one, other), (other, one)))
    return Difference(
        one,
        other,
        _changes(one.costs, other.costs),
        _changes(one.widths, other.widths),
        _changes(one.parameters, other.parameters) if both else (),
        _changes(one.ops, other.ops) if both else (),
    )


def _side(of: Analysis | Structure, models: Mapping[str, Analysis]) -> Side:
    if isinstance(of, Analysis):
        graph = of.graph
        widths = {g.id: g.width for g in of.groups}
        shapes = {name: each.shape for name, each in of.parameters.items()}
        ops = {_name(node): (node.type, *node.inputs) for node in graph.nodes if node.crossing is None}
        return Side(graph.source, "model", graph.fingerprint, widths, of.count(), shapes, ops)
    widths = {g.id: len(g.keep) for g in of.groups}
    costs = of.costs.get("after", {})
    if not costs and of.model in models:
        analysis = models[of.model]
        costs = analysis.count(np.array([widths.get(g.id, g.width) for g in analysis.groups], np.int64))
    return Side("structure", "structure", of.model, widths, costs, {}, {})


def _left(of: Side, other: Side, groups: Mapping[str, Group]) -> dict[str, int]:
    """Widths of groups that `of` does not have as such (one channel is none), as its parameters have them."""
    found = {}
    for id, width in other.widths.items():
        first = groups[id].members[0]
        size, full = (side.parameters.get(first.tensor, ())[first.axis :][:1] for side in (of, other))
        if id not in of.widths and size and (size[0] * width) % full[0] == 0:
            found[id] = size[0] * width // full[0]
    return found


def _name(node: Node) -> str:
    return node.name or next(o for o in node.outputs if o)


def _changes(before: Mapping[str, T], after: Mapping[str, T]) -> tuple[Change[T], ...]:
    """Of every name, in the order of the first, then of the second."""
    every: Iterable[str] = dict.fromkeys((*before, *after))
    return tuple(Change(name, before.get(name), after.get(name)) for name in every)
