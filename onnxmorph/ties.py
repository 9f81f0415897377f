"""Which positions stand and fall together, op by op: ways through the equations of a model's plans.

The graph has a node for every place (tensor, axis, position) that is reached, and an edge for every factor of an
op that carries what is followed: a channel, or a reason for being fixed. Of the many positions that a product of
factors offers, one stands for all. A place without a position stands for all that carry it: a channel that an op
spreads over several positions is one channel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import networkx as nx
import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Labels
from onnxmorph.graph import Node
from onnxmorph.notation import Factor, Sum, Term, factors, size_of
from onnxmorph.propagate import Plan

Place = tuple[str, int, int | None]  # tensor, axis, position
Carries = Callable[[int, str, int | None], bool]  # of a plan, by number: whether a position of a factor carries it


@dataclass(frozen=True)
class Step:
    """An op on the way, the factor of its equation that ties, and the axis where it arrives."""

    node: str
    op: str
    factor: str
    tensor: str
    axis: int


def indices(term: Term, sizes: Mapping[str, int], position: int | None) -> dict[str, int | None]:
    """The position of every factor that a position of an axis is made of; of None, all factors.

    >>> from onnxmorph.notation import parse_term
    >>> indices(parse_term("(a b)"), {"a": 2, "b": 3}, 4), indices(parse_term("(a + b)"), {"a": 2, "b": 3}, 4)
    ({'a': 1, 'b': 1}, {'b': 2})
    """
    if isinstance(term, Factor):
        return {term.name: position}
    if position is None:
        return {f.name: None for f in factors(term)}
    found: dict[str, int | None] = {}
    if isinstance(term, Sum):
        for each in term.terms:
            size = size_of(each, sizes)
            if position < size:
                return indices(each, sizes, position)
            position -= size
        return found
    for each in reversed(term.terms):
        position, rest = divmod(position, max(size_of(each, sizes), 1))
        found = indices(each, sizes, rest) | found
    return found


def position(term: Term, sizes: Mapping[str, int], factor: str, index: int) -> int:
    """The first position of an axis in which a factor has this position."""
    if isinstance(term, Factor):
        return index if term.name == factor else 0
    at = 0
    for each in term.terms:
        here = any(f.name == factor for f in factors(each))
        if isinstance(term, Sum):
            if here:
                return at + position(each, sizes, factor, index)
            at += size_of(each, sizes)
        else:
            at = at * size_of(each, sizes) + (position(each, sizes, factor, index) if here else 0)
    return at


@dataclass(frozen=True, eq=False)
class Ties:
    """The axes of a model's ops, and the ways between them."""

    analysis: Analysis

    @cached_property
    def axes(self) -> list[list[tuple[str, int, Term]]]:
        """Per plan: tensor, axis and term of every axis in its equation, broadcast ones left out."""
        return [list(_axes(plan)) for plan in self.analysis.plans]

    @cached_property
    def touching(self) -> dict[str, list[int]]:
        """Tensor to the numbers of the plans that read or write it."""
        found: dict[str, list[int]] = {}
        for number, axes in enumerate(self.axes):
            for tensor in dict.fromkeys(tensor for tensor, *_ in axes):
                found.setdefault(tensor, []).append(number)
        return found

    def steps(self, place: Place, carries: Carries) -> Iterator[tuple[Place, Step]]:
        """The places that one op ties to a place."""
        for number in self.touching.get(place[0], ()):
            plan = self.analysis.plans[number]
            for tensor, axis, term in self.axes[number]:
                if (tensor, axis) != place[:2]:
                    continue
                for factor, index in _moved(plan, indices(term, plan.sizes, place[2])):
                    if not carries(number, factor, index):
                        continue
                    for other, there, of in self.axes[number]:
                        if any(f.name == factor for f in factors(of)):
                            at = None if index is None else position(of, plan.sizes, factor, index)
                            target = (other, there, at)
                            name = plan.node.name or plan.node.outputs[0]
                            yield target, Step(name, plan.node.type, factor, other, there)

    def explore(self, start: Place, carries: Carries, until: Callable[[Place], bool]) -> nx.Graph[Place]:
        """The places around one, nearest first, as far as there are any or `until` one; edges carry a ``step``."""
        graph: nx.Graph[Place] = nx.Graph()
        graph.add_node(start)
        queue = deque([start])
        while queue:
            place = queue.popleft()
            if until(place):
                break
            for target, step in self.steps(place, carries):
                if target not in graph:
                    queue.append(target)
                    graph.add_edge(place, target, step=step)
        return graph

    def maker(self, place: Place) -> Node | None:
        """The node that makes a position out of none of its inputs': a window's, a resampled one."""
        for number in self.touching.get(place[0], ()):
            plan = self.analysis.plans[number]
            if place[0] in plan.node.outputs:
                read = {f.name for n, _, term in self.axes[number] if n in plan.node.inputs for f in factors(term)}
                read |= {take.new for take in plan.spec.takes}
                of = [term for tensor, axis, term in self.axes[number] if (tensor, axis) == place[:2]]
                if of and not read & set(indices(of[0], plan.sizes, place[2])):
                    return plan.node
        return None

    # -- what is followed ------------------------------------------------------------------------

    def channel(self, channel: int) -> Carries:
        """A channel that is free."""

        def carries(number: int, factor: str, index: int | None) -> bool:
            rows = self.analysis.factor_rows[number].get(factor)
            return rows is not None and channel in (rows if index is None else rows[index])

        return carries

    def reason(self, reason: int) -> Carries:
        """A reason for being fixed."""

        def carries(number: int, factor: str, index: int | None) -> bool:
            labels = self.analysis.plans[number].labels.get(factor)
            if isinstance(labels, int):  # the op itself holds the factor, whatever else did before
                return labels > 0
            if index is None and isinstance(labels, np.ndarray):
                return bool((self.analysis.trace.channels.why(labels) == reason).any())
            return self.why(labels, index or 0) == reason

        return carries

    def fixed(self, number: int, factor: str, index: int | None) -> bool:
        """Whether the position is fixed, for whatever reason."""
        rows = self.analysis.factor_rows[number].get(factor)
        return rows is None or not rows[index or 0].any()

    def why(self, labels: Labels | None, index: int) -> int:
        """The number of the reason why a position stays, 0 where it has none of its own."""
        if labels is None or isinstance(labels, int):
            return labels or 0
        found = self.analysis.trace.channels.why(labels[index])
        return int(found[found > 0][0]) if found.any() else 0

    def reasons(self, tensor: str, axis: int) -> list[int]:
        """`why` of every position of an axis; -1 where it may go."""
        labels = (self.analysis.trace.labels.get(tensor) or ())[axis]
        rows = self.analysis.rows[tensor][axis]
        size = len(labels) if isinstance(labels, np.ndarray) else (self.analysis.graph.shapes[tensor] or ())[axis]
        free = np.zeros(size, bool) if rows is None else rows.any(1)
        if not isinstance(labels, np.ndarray):
            return [labels or 0] * size
        why = self.analysis.trace.channels.why(labels)
        first = np.take_along_axis(why, (why > 0).argmax(1)[:, None], 1)[:, 0] if why.shape[1] else why.sum(1)
        return [int(number) for number in np.where(free, -1, first)]


def path(graph: nx.Graph[Place], start: Place, end: Place) -> tuple[Step, ...]:
    """The steps of a shortest way."""
    places = nx.shortest_path(graph, start, end)
    return tuple(_towards(graph, a, b) for a, b in pairwise(places))


def _towards(graph: nx.Graph[Place], a: Place, b: Place) -> Step:
    """The step of an edge, in this direction."""
    step: Step = graph.edges[a, b]["step"]
    return Step(step.node, step.op, step.factor, b[0], b[1])


def _axes(plan: Plan) -> Iterator[tuple[str, int, Term]]:
    if plan.equation is None:
        return
    node = plan.node
    for names, shapes, side in (
        (node.inputs, node.in_shapes, plan.equation.inputs),
        (node.outputs, node.out_shapes, plan.equation.outputs),
    ):
        for name, shape, terms in zip(names, shapes, side, strict=False):
            for axis, term in enumerate(terms or ()):
                if name and shape is not None and shape[axis] == size_of(term, plan.sizes):
                    yield name, axis, term


def _moved(plan: Plan, found: Mapping[str, int | None]) -> Iterable[tuple[str, int | None]]:
    """The factors and their positions, those that the op picks from or into, and those in another role."""
    yield from found.items()
    for pair in plan.spec.same:
        yield from ((other, found[one]) for one, other in (pair, pair[::-1]) if one in found)
    for take in plan.spec.takes:
        if take.new in found:
            at = found[take.new]
            yield take.of, None if at is None else int(take.index[at])
        if take.of in found:
            at = found[take.of]
            picks = [None] if at is None else np.flatnonzero(take.index == at)[:1].tolist()
            yield from ((take.new, pick) for pick in picks)
