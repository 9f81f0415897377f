"""Weights of channels that are added: function-preserving copies, or fresh ones by fan-in.

A copied channel computes what its original does. Wherever channels are summed over, the weights that read the
copies share the original's weight: unequal random shares that sum to 1, so that copies learn apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array
from onnxmorph.notation import Factor, Sum, Term, factors
from onnxmorph.positions import count, take
from onnxmorph.propagate import Plan
from onnxmorph.quantised import PLAIN, Steps, steps_of, stored
from onnxmorph.rules import Rule
from onnxmorph.weights import boxes, cut, part_of

Edit = Callable[[NDArray[Any]], None]  # of an array in its place


class Grown(Mapping[str, NDArray[Any]]):
    """The parameters of a widened model that change, by name: each is copied and edited when it is asked for."""

    def __init__(self, analysis: Analysis, copies: Array) -> None:
        self.analysis, self.copies = analysis, copies
        self.edits: dict[str, list[Edit]] = {name: [] for name in analysis.parameters if self.changed(name)}

    def changed(self, name: str) -> dict[int, Array]:
        """The channels of the axes that change."""
        rows = enumerate(self.analysis.rows[name])
        return {axis: of for axis, of in rows if of is not None and (self.copies[of] != 1).any()}

    def __getitem__(self, name: str) -> NDArray[Any]:
        edits = self.edits[name]
        keep = {axis: take(of, self.copies).old for axis, of in self.changed(name).items()}
        array = cut(self.analysis.graph.tensor(name), name, keep)
        for edit in edits:
            edit(array)
        return array

    def __contains__(self, name: object) -> bool:
        return name in self.edits

    def __iter__(self) -> Iterator[str]:
        return iter(self.edits)

    def __len__(self) -> int:
        return len(self.edits)


@dataclass(frozen=True)
class Inexact:
    """Where copies change what the network computes: a sentence, and the groups that were copied there."""

    note: str
    groups: frozenset[str]


def grown(analysis: Analysis, copies: Array, init: str, seed: int) -> tuple[Grown, list[Inexact]]:
    """The parameters of a widened model.

    Args:
        analysis: of the original model.
        copies: ``[channels + 1]``, more than 1 where a channel is copied.
        init: ``preserve`` (the widened model computes what the narrow one did) or ``fresh`` (new slices of
            weights are drawn from N(0, 2 / fan-in), He et al. 2015; norms and biases are copied).
        seed: of the random shares and draws.

    Returns:
        the parameters that change, by name, and where `preserve` could not hold.
    """
    weights = Grown(analysis, copies)
    if init == "fresh":
        _draw(analysis, copies, weights, seed)
        return weights, []
    return weights, list(_share(analysis, copies, weights, np.random.default_rng(seed)))


def _share(analysis: Analysis, copies: Array, weights: Grown, rng: np.random.Generator) -> Iterator[Inexact]:
    """Share out the weights that read copies; what cannot be shared out is yielded."""

    def inexact(note: str, *over: Array | None) -> Inexact:
        read = np.unique(np.concatenate([r[r > 0] for r in over if r is not None]))
        of = np.unique(analysis.group_of[read[copies[read] != 1]])
        return Inexact(note, frozenset(analysis.groups[g].id for g in of.tolist()))

    producers = {o: plan for plan in analysis.plans for o in plan.node.outputs if o}
    readers = Counter(name for plan in analysis.plans for name in set(plan.node.inputs))
    steps = steps_of(analysis)
    found: dict[_Reading, list[Plan]] = {}
    for plan, rows in zip(analysis.plans, analysis.factor_rows, strict=True):
        if not plan.node.counted or plan.equation is None or plan.rule is None:
            continue
        over = () if any(q.data is None for q in plan.rule.quantised) else plan.equation.averaged  # a range stays
        averaged = [rows[n] for n in over]
        copied = [copies[r].prod(1) for r in averaged if r is not None]
        if any(len(np.unique(times[times > 0])) > 1 for times in copied):
            yield inexact(f"{plan.node} averages over channels that were not copied equally often", *averaged)
        elif any((times > 1).any() for times in copied) and _has_one_total(plan.rule):
            yield inexact(f"{plan.node} shares out one total among copied channels", *averaged)
        macs = _multiplies(plan.rule)
        for factor in _summed(plan):
            of = rows.get(factor)
            if of is not None and (copies[of] > 1).any() and (factor not in plan.equation.averaged or macs):
                reading = _weight_of(analysis, plan, factor, of, producers, readers)
                if reading is None:
                    yield inexact(
                        f"{plan.node} sums over copied channels and has no weight of its own to share out", of
                    )
                else:
                    found.setdefault(reading, []).append(plan)
    ways: dict[str, set[tuple[int, ...]]] = {}  # a weight may be read along several axes, but by the same ops
    for reading, plans in found.items():
        ways.setdefault(reading.name, set()).add(tuple(map(id, plans)))
    for reading, plans in found.items():
        if readers[reading.name] != len(plans) or len(ways[reading.name]) != 1:
            note = f"{plans[0].node} sums over copied channels with a weight that is also used in another way"
            yield inexact(
                note, *(analysis.factor_rows[analysis.plans.index(plan)].get(reading.factor) for plan in plans)
            )
            continue
        plan = plans[0]
        rows = analysis.factor_rows[analysis.plans.index(plan)]
        bounds = _bounds(take(cast(Array, rows[reading.factor]), copies).old, rng)
        shape = [1] * len(analysis.parameters[reading.name].shape)
        if reading.term is not None:  # the weight's axis may have other factors, e.g. (g i)
            ones = {f.name: np.ones(_new_size(plan, rows.get(f.name), f.name, copies)) for f in factors(reading.term)}
            terms = [[b if n == reading.factor else one for n, one in ones.items()] for b in bounds]
            bounds = [reduce(np.multiply.outer, parts).reshape(-1) for parts in terms]
        shape[reading.axis] = len(bounds[0])
        zero = None
        if analysis.parameters[reading.name].quantised:
            zero = _widened(analysis, reading.name, steps.get(reading.name, PLAIN).zero, copies)
        start, end = (b.reshape(shape) for b in bounds)
        weights.edits[reading.name].append(_sharing(start, end, zero))


def _sharing(start: NDArray[np.float64], end: NDArray[np.float64], zero: NDArray[Any] | None) -> Edit:
    """The edit that leaves every position its part; of quantised ones whole numbers that add up to the original."""

    def edit(array: NDArray[Any]) -> None:
        for index in boxes(array.shape, array.itemsize):
            low, high = part_of(start, index), part_of(end, index)
            if zero is None:
                array[index] = (array[index] * (high - low)).astype(array.dtype)
            else:
                point = part_of(zero, index)
                value = array[index].astype(np.float64) - point
                array[index] = (np.rint(high * value) - np.rint(low * value) + point).astype(array.dtype)

    return edit


def reading_places(analysis: Analysis) -> frozenset[tuple[str, int]]:
    """The axes of parameters along which ops sum over what they read: a channel that is zero there is not heard."""
    producers = {o: plan for plan in analysis.plans for o in plan.node.outputs if o}
    readers = Counter(name for plan in analysis.plans for name in set(plan.node.inputs))
    found = set()
    for plan, rows in zip(analysis.plans, analysis.factor_rows, strict=True):
        for factor in _summed(plan) if plan.node.counted and plan.equation is not None else ():
            of = rows.get(factor)
            reading = None if of is None else _weight_of(analysis, plan, factor, of, producers, readers)
            if reading is not None:
                found.add((reading.name, reading.axis))
    return frozenset(found)


def _multiplies(rule: Rule) -> bool:
    return rule.cost is not None and rule.cost.macs


def _has_one_total(rule: Rule) -> bool:
    """Whether an op that averages shares out a total (a softmax); a mean and a norm are as they were."""
    norm = any(role != "quantiser" for role in rule.roles.values())
    return not (norm or rule.keeps or _multiplies(rule))


def _bounds(old: Array, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """Cuts [0, 1] among the copies of every position, unequally: where the part of each starts, and where it ends."""
    if not len(old):
        return [np.zeros(0), np.zeros(0)]
    share = rng.uniform(0.5, 1.5, len(old))
    order = np.argsort(old, kind="stable")
    share, groups = share[order] / np.bincount(old, share)[old[order]], old[order]
    first = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    total = np.cumsum(share)
    before = np.repeat((total - share)[first], np.diff(np.append(first, len(old))))
    end = total - before
    end[np.append(first[1:], len(old)) - 1] = 1
    start = np.append(0, end[:-1])
    start[first] = 0
    return [bound[np.argsort(order)] for bound in (start, end)]


def _widened(analysis: Analysis, name: str, steps: NDArray[Any], copies: Array) -> NDArray[Any]:
    """The scales or zero points of a parameter, for its new shape."""
    for axis, rows in enumerate(analysis.rows[name]):
        if rows is not None and steps.ndim and steps.shape[axis] > 1:
            steps = steps.take(take(rows, copies).old, axis)
    return steps


@dataclass(frozen=True)
class _Reading:
    """The parameter that holds one weight for every position of a factor, its axis, and that axis's term."""

    name: str
    axis: int
    factor: str
    term: Term | None


def _new_size(plan: Plan, rows: Array | None, factor: str, copies: Array) -> int:
    return plan.sizes[factor] if rows is None else count(rows, copies)


def _summed(plan: Plan) -> list[str]:
    """The factors that are in inputs and in no output; positions that are picked or left out are not summed."""
    assert plan.equation is not None
    read = [axis for axes in plan.equation.inputs for axis in axes or () if not isinstance(axis, Sum)]
    written = [axis for axes in plan.equation.outputs for axis in axes or ()]
    before, after = ({f.name for axis in side for f in factors(axis)} for side in (read, written))
    return sorted(before - after - {each.of for each in plan.spec.takes})


def _weight_of(
    analysis: Analysis, plan: Plan, factor: str, of: Array, producers: Mapping[str, Plan], readers: Mapping[str, int]
) -> _Reading | None:
    assert plan.equation is not None
    for name, axes in zip(plan.node.inputs, plan.equation.inputs, strict=False):
        at = [t for t, axis in enumerate(axes or ()) if any(f.name == factor for f in factors(axis))]
        if not at:
            continue
        if name in analysis.parameters:
            term = (axes or ())[at[0]]
            return _Reading(name, at[0], factor, None if isinstance(term, Factor) else term)
        axis = at[0]
        while name in producers and readers[name] == 1:  # a weight that is only moved on its way here
            source = producers[name]
            read = [n for n in source.node.inputs if analysis.roles.get(n) != "quantiser"]
            labelled = [n for n in read if analysis.rows.get(n) is not None]
            if source.rule is None or source.equation is None or source.rule.cost is not None or len(labelled) != 1:
                break
            term = (source.equation.outputs[source.node.outputs.index(name)] or ())[axis]
            before = source.equation.inputs[source.node.inputs.index(labelled[0])] or ()
            if not isinstance(term, Factor) or term not in before:
                break
            name, axis = labelled[0], before.index(term)
        if name in analysis.parameters and readers[name] == 1:
            rows = analysis.rows[name][axis]
            if rows is not None and np.array_equal(rows, of):
                return _Reading(name, axis, factor, None)
    return None


def _draw(analysis: Analysis, copies: Array, weights: Grown, seed: int) -> None:
    """Overwrite every slice of a copy by fresh weights."""
    steps = steps_of(analysis)
    plain = stored(analysis)
    for number, (plan, rows) in enumerate(zip(analysis.plans, analysis.factor_rows, strict=True)):
        if plan.rule is None or not plan.rule.weights or plan.equation is None:
            continue
        for i in plan.rule.weights:
            name = plan.node.inputs[i] if i < len(plan.node.inputs) else ""
            name = plain.get(name, name)
            if name not in weights:
                continue
            summed = {f.name for axis in plan.equation.inputs[i] or () for f in factors(axis)} & set(_summed(plan))
            fan_in = prod(_new_size(plan, rows.get(factor), factor, copies) for factor in summed)
            own = steps.get(name, PLAIN) if analysis.parameters[name].quantised else None
            wide = own and Steps(*(_widened(analysis, name, each, copies) for each in (own.scale, own.zero)))
            copied = [
                np.zeros(size, bool) if of is None else np.asarray(take(of, copies).copy.any(1))
                for of, size in zip(analysis.rows[name], analysis.parameters[name].shape, strict=True)
            ]
            weights.edits[name] = [_drawing((seed, number, i), np.sqrt(2 / max(fan_in, 1)), wide, copied)]


def _drawing(seed: tuple[int, ...], deviation: float, steps: Steps | None, copied: Sequence[NDArray[np.bool_]]) -> Edit:
    """The edit that draws what is copied along any axis."""

    def edit(array: NDArray[Any]) -> None:
        rng, parts = np.random.default_rng(seed), list(boxes(array.shape, array.itemsize))
        if steps is not None and array.size:
            ends = [(p.min(), p.max()) for p in (array[index].astype(np.float64) for index in parts)]
            least, most = min(low for low, _ in ends), max(high for _, high in ends)
        for index in parts:
            fresh = rng.normal(0, deviation, array[index].shape)
            if steps is not None:
                scale, zero = part_of(steps.scale, index), part_of(steps.zero, index)
                fresh = np.clip(np.rint(fresh / scale + zero), least, most)
            new = reduce(np.logical_or.outer, (of[part] for of, part in zip(copied, index, strict=True)))
            array[index] = np.where(new, fresh, array[index]).astype(array.dtype)

    return edit
