"""What is cut together and by which ops, what it costs, and why the rest stays: ``explain``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from onnxmorph.analysis import Analysis, Group, Member
from onnxmorph.bounds import near
from onnxmorph.errors import OnnxMorphError
from onnxmorph.propagate import Plan, Reason
from onnxmorph.ties import Place, Step, Ties, path

Chain = tuple[Step, ...]
TIED = "tied"  # the reason that has another behind it


@dataclass(frozen=True)
class Tied:
    """An axis of a parameter with positions of a group, and the shortest way there from the group's first axis."""

    tensor: str
    axis: int
    positions: int
    chain: Chain


@dataclass(frozen=True)
class GroupCase:
    """A group: what one of its channels costs, where its channels stand, and the ops that they pass."""

    id: str
    width: int
    price: Mapping[str, int]
    members: tuple[Tied, ...]
    ops: tuple[tuple[str, str], ...]
    averages: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Stay:
    """Positions that stay (ranges, ends included), and the way to the place that forces them to."""

    positions: tuple[tuple[int, int], ...]
    count: int
    code: str
    reason: str
    chain: Chain


@dataclass(frozen=True)
class AxisCase:
    """An axis of a tensor: the groups that stand on it, and what stays."""

    tensor: str
    axis: int
    size: int
    groups: tuple[str, ...]
    stays: tuple[Stay, ...]


@dataclass(frozen=True)
class FactorCase:
    """A factor of an op's equation: its size, and the groups whose channels are its positions."""

    name: str
    size: int
    groups: tuple[str, ...]
    averaged: bool


@dataclass(frozen=True)
class OpCase:
    """An op: its equation, its factors, what it costs; or why no equation holds for it. ``key`` is unique to it."""

    node: str
    op: str
    key: str
    equation: str
    factors: tuple[FactorCase, ...]
    costs: Mapping[str, int]
    refused: tuple[str, str] | None


@dataclass(frozen=True)
class Explanation:
    """All that one name stands for."""

    name: str
    groups: tuple[GroupCase, ...] = ()
    axes: tuple[AxisCase, ...] = ()
    ops: tuple[OpCase, ...] = ()


def explain(analysis: Analysis, name: str) -> Explanation:
    """What a group, a tensor, an axis (``tensor:axis``) or a node is, in terms of the analysis.

    Raises:
        OnnxMorphError: nothing in the model has that name; the message lists near ones.
    """
    ties = Ties(analysis)
    groups = [g for g in analysis.groups if g.id == name]
    tensor, _, axis = name.rpartition(":")
    shape = analysis.graph.shapes.get(tensor)
    found = _axis(ties, tensor, int(axis)) if shape and axis.isdecimal() and int(axis) < len(shape) else None
    if groups:  # and what of that axis is in no group
        return Explanation(name, tuple(_group(ties, g) for g in groups), (found,) if found and found.stays else ())
    if found is not None:
        return Explanation(name, tuple(_group(ties, g) for g in analysis.groups if g.id in found.groups), (found,))
    rank = len(analysis.graph.shapes.get(name) or ())
    plans = [(n, p) for n, p in enumerate(analysis.plans) if (p.node.name or p.node.outputs[0]) == name]
    if name not in analysis.graph.shapes and not plans:
        known = (*(g.id for g in analysis.groups), *analysis.graph.shapes, *(p.node.name for p in analysis.plans))
        message = f"the model has no group, tensor or node {name!r}; {near(name, known)}"
        raise OnnxMorphError(message, code="explain-name")
    axes = tuple(_axis(ties, name, t) for t in range(rank)) if name in analysis.rows else ()
    return Explanation(name, (), axes, tuple(_op(analysis, n, p) for n, p in plans))


def way(analysis: Analysis, group: Group, one: Member, other: Member) -> Chain:
    """The shortest way between two members of a group: the ops by which they are tied."""
    ties, end = Ties(analysis), _place(other)
    graph = ties.explore(_place(one), ties.channel(group.start + 1), lambda place: place == end)
    return path(graph, _place(one), end)


def _group(ties: Ties, group: Group) -> GroupCase:
    analysis = ties.analysis
    number = analysis.groups.index(group)
    start = _place(group.members[0])
    graph = ties.explore(start, ties.channel(group.start + 1), lambda place: False)
    members = []
    for m in group.members:
        rows = analysis.rows[m.tensor][m.axis]
        assert rows is not None
        count = int((analysis.group_of[rows] == number).any(1).sum())
        members.append(Tied(m.tensor, m.axis, count, path(graph, start, _place(m))))
    passed = [
        (plan.node.type, plan.node.name or plan.node.outputs[0])
        for plan, rows in zip(analysis.plans, analysis.factor_rows, strict=True)
        if any(r is not None and (analysis.group_of[r] == number).any() for r in rows.values())
    ]
    price = {name: int(cost.gradient(analysis.widths)[number]) for name, cost in analysis.costs.items()}
    averages = tuple((a.op, a.node) for a in analysis.averages if group.id in a.groups)
    return GroupCase(group.id, group.width, price, tuple(members), tuple(passed), averages)


def _place(member: Member) -> Place:
    return member.tensor, member.axis, None


def _axis(ties: Ties, tensor: str, axis: int) -> AxisCase:
    analysis = ties.analysis
    rows, numbers = analysis.rows[tensor][axis], np.array(ties.reasons(tensor, axis), np.int64)
    groups = () if rows is None else np.unique(analysis.group_of[rows])
    stays = []
    for number in dict.fromkeys(numbers[numbers >= 0].tolist()):
        positions = np.flatnonzero(numbers == number)
        reason, chain = _cause(ties, (tensor, axis, int(positions[0])), number)
        stays.append(Stay(_ranges(positions), len(positions), reason.code, reason.text, chain))
    ids = tuple(analysis.groups[g].id for g in groups if g >= 0)
    return AxisCase(tensor, axis, len(numbers), ids, tuple(stays))


def _cause(ties: Ties, start: Place, number: int) -> tuple[Reason, Chain]:
    """Why a place stays, and the way to where that arises."""
    if not number:
        return _beyond(ties, start, 0) or (Reason(code="no-channels", text="it holds no channels"), ())
    reason = ties.analysis.trace.reasons[number]
    chain: Chain = ()
    end = start
    for first in (start, (*start[:2], None)):  # by its own positions, or else by others of the same channel
        graph = ties.explore(first, ties.reason(number), lambda place: place[0] in reason.at)
        found = next((place for place in graph if place[0] in reason.at), None)
        if found is not None:
            chain, end = path(graph, first, found), found
            break
    if reason.code != TIED:
        return reason, chain
    further = _beyond(ties, end, number) or (Reason(code="no-channels", text="those are no channels"), ())
    return Reason(reason.code, f"{reason.text}; {further[0].text}", further[0].at), (*chain, *further[1])


def _beyond(ties: Ties, start: Place, number: int) -> tuple[Reason, Chain] | None:
    """From a place that is tied to what must stay, to the nearest with a reason of its own, or that an op makes."""
    trace = ties.analysis.trace

    def reason_of(place: Place) -> int:
        labels = trace.labels.get(place[0])
        found = ties.why(labels[place[1]], place[2] or 0) if labels else 0
        return 0 if found == number or trace.reasons[found].code == TIED else found

    graph = ties.explore(start, ties.fixed, lambda place: bool(reason_of(place) or ties.maker(place)))
    for place in graph:
        if found := reason_of(place):
            reason, rest = _cause(ties, place, found)
            return reason, (*path(graph, start, place), *rest)
        if maker := ties.maker(place):
            text = f"{maker} makes these positions, which are no channels"
            return Reason(code="no-channels", text=text), path(graph, start, place)
    return None


def _ranges(positions: np.ndarray[tuple[int], np.dtype[np.intp]]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as ranges, ends included.

    >>> _ranges(np.array([0, 1, 2, 5, 7, 8]))
    ((0, 2), (5, 5), (7, 8))
    """
    runs = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)
    return tuple((int(run[0]), int(run[-1])) for run in runs)


def _op(analysis: Analysis, number: int, plan: Plan) -> OpCase:
    rows = analysis.factor_rows[number]
    averaged = plan.equation.averaged if plan.equation is not None else frozenset[str]()
    factors = []
    for name in plan.labels:
        of = rows[name]
        ids = () if of is None else tuple(analysis.groups[g].id for g in np.unique(analysis.group_of[of]) if g >= 0)
        factors.append(FactorCase(name, plan.sizes[name], ids, name in averaged))
    costs = {name: polynomials[number].value(analysis.widths) for name, polynomials in analysis.op_costs.items()}
    name = plan.node.name or plan.node.outputs[0]
    return OpCase(name, plan.node.type, plan.node.key, plan.spec.equation, tuple(factors), costs, plan.spec.refuse)
