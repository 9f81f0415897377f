"""Values of what no input reaches any more: a node that reads nothing but constants is run, on small arrays.

A constant is held with one position on every axis along which it does not vary, so batches and images may stay
dynamic. A node is run with one position of every factor that it treats position by position and along which no
input varies: equivariance says that its output does not vary either, and deletion that one position tells all.
Factors whose size counts (windows, sums, shared totals) are run at full size; where that size is dynamic, at two
sizes, which have to agree. What cannot be settled this way stays a node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.errors import ModelError
from onnxmorph.graph import read
from onnxmorph.notation import Equation, Factor, Sum, Term, factors, parse_term, size_of
from onnxmorph.positions import moved
from onnxmorph.propagate import Plan
from onnxmorph.rules import Write
from onnxmorph.surgery.run import run_node
from onnxmorph.surgery.topology import Topology, axes_of_input

Constant = NDArray[Any]
Sizes = Mapping[str, int]
LARGEST = 1 << 24  # elements of an array that a node is run on
OTHER = 32  # more positions of a dynamic axis, to see whether their number tells


class Constants:
    """The values that are needed of constant tensors; each axis has its full new size, or 1.

    ``found`` is filled in the order of the graph. What is in `topology.constant` and not here could not be settled.
    """

    def __init__(self, topology: Topology, values: Mapping[str, ir.Value], copies: NDArray[np.int64]) -> None:
        self.topology, self.values, self.copies = topology, values, copies
        self.analysis = topology.analysis
        self.found: dict[str, Constant] = {}
        self.nodes = {v.name: n for n in self.analysis.graph.model.graph for v in n.outputs if v.name}
        self.writer = {o: i for i, plan in enumerate(self.analysis.plans) for o in plan.node.outputs if o}
        needed = topology.needs()
        for index, plan in enumerate(self.analysis.plans):
            if any(o in needed and o in topology.constant for o in plan.node.outputs):
                self.settle(index)

    def settle(self, index: int) -> None:
        """Find the outputs of a node, if they can be."""
        names = [o for o in self.analysis.plans[index].node.outputs if o and o not in self.topology.empty]
        for name, array in zip(names, self.evaluate(index) or [], strict=False):
            if array is not None:
                self.found[name] = array

    def value(self, name: str) -> Constant | None:
        """The value of a tensor, found or known before; None where it depends on an input, or is not settled."""
        if name not in self.found:
            tensor = self.values[name].const_value if name in self.values else None
            if tensor is not None:
                self.found[name] = compressed(read(tensor, name))
            elif name in self.analysis.graph.known and self.analysis.graph.static[name].all():
                self.found[name] = self.analysis.graph.known[name]
            elif name not in self.topology.reached and name in self.writer:
                self.settle(self.writer[name])
        return self.found.get(name)

    # -- one node --------------------------------------------------------------------------------

    def evaluate(self, index: int) -> list[Constant | None] | None:
        """The outputs of a node that are not empty, in order; None where it cannot be run."""
        plan, full = self.analysis.plans[index], self.topology.sizes[index]
        if plan.equation is None:
            return None
        given = self.inputs(plan)
        if given is None:
            return None
        dynamic = self.dynamic(plan)
        varying = {n for i, array in given.items() for n in _varying(array, axes_of_input(plan, i), full)}
        if varying & dynamic:
            return None
        whole = _whole(plan) | varying
        for each in plan.spec.takes:  # what is picked has as many positions as the indices say
            whole |= {each.of, each.new} if {each.of, each.new} & whole else set()
        now = {n: size if n in whole else 1 for n, size in full.items()}
        summed = _named(plan.equation.inputs) - _named(plan.equation.outputs) - _summands(plan.equation)
        now |= {n: 1 for n in summed if full[n] == 0}  # one zero, for the sum of nothing
        results, told = self.run(plan, full, now, given), whole & dynamic
        if results is None or not told:
            return results
        grown = {n: size + OTHER if n in told else size for n, size in now.items()}
        others = self.run(plan, {**full, **{n: grown[n] for n in told}}, grown, given)
        return [
            a if a is not None and b is not None and a.shape == b.shape and np.allclose(a, b, 1e-6, 0) else None
            for a, b in zip(results, others or [None] * len(results), strict=True)
        ]

    def inputs(self, plan: Plan) -> dict[int, Constant] | None:
        """The arrays that a node reads; those of empty tensors are zeros. None where one is not to be had."""
        assert plan.equation is not None
        given: dict[int, Constant] = {}
        for i, (name, axes) in enumerate(zip(plan.node.inputs, plan.equation.inputs, strict=False)):
            if not name or axes is None:
                continue
            empty = name in self.topology.empty
            array = np.zeros([1] * len(axes), self.kind(plan, name)) if empty else self.value(name)
            if array is None:
                return None
            given[i] = array
        return given

    def kind(self, plan: Plan, name: str) -> np.dtype[Any]:
        """The type of an empty input: that of a parameter beside it, else as declared, else that of the model."""
        graph = self.analysis.graph
        beside = [n for n in plan.node.inputs if n in graph.parameters]
        types = [self.values[n].dtype for n in (*beside, name, *graph.parameters)]
        return next(t for t in types if t is not None).numpy()

    def dynamic(self, plan: Plan) -> set[str]:
        """The factors of axes whose size is not known before running."""
        assert plan.equation is not None
        sides = ((plan.node.inputs, plan.equation.inputs), (plan.node.outputs, plan.equation.outputs))
        return {
            f.name
            for names, side in sides
            for name, axes in zip(names, side, strict=False)
            for t in self.analysis.graph.dynamic.get(name, ())
            if axes is not None
            for f in factors(axes[t])
        }

    def run(self, plan: Plan, full: Sizes, now: Sizes, given: Mapping[int, Constant]) -> list[Constant | None] | None:
        """Run a node at the sizes `now`, and give its outputs at one position per axis, or `full`."""
        node = plan.node
        name = next(o for o in node.outputs if o)
        feeds = self.plain(plan)
        for i, array in given.items():
            axes = axes_of_input(plan, i)
            wanted = [
                1 if size == 1 != size_of(axis, plan.sizes) else size_of(axis, now)  # one position for all stays one
                for axis, size in zip(axes, node.in_shapes[i] or (), strict=True)
            ]
            if prod(wanted) > LARGEST:
                return None
            feeds[i] = _shaped(array, axes, wanted, full, now)
        assert plan.equation is not None
        if any(prod(size_of(axis, now) for axis in axes) > LARGEST for axes in plan.equation.outputs if axes):
            return None
        attributes = dict(self.nodes[name].attributes)
        for write in plan.spec.writes:
            _write(plan, write, now, attributes, feeds)
        rows = self.analysis.factor_rows[self.writer[name]]
        for each in plan.spec.takes:
            of, at = rows.get(each.of), node.formal.index(each.parameter)
            index = each.index if of is None else moved(of, each.index, self.copies)
            feeds[at] = (index if now[each.new] == len(index) else np.zeros(1)).astype(feeds[at].dtype)
        outputs = [o for o in node.outputs if o not in self.topology.empty]
        try:
            results = run_node(self.analysis.graph.model, self.nodes[name], attributes, feeds, outputs)
        except ModelError:
            return None
        terms = dict(zip(node.outputs, plan.equation.outputs, strict=False))
        return [
            self.settled(o, r, terms.get(o), full, now) for o, r in zip(filter(None, outputs), results, strict=True)
        ]

    def settled(
        self, name: str, array: Constant, axes: tuple[Term, ...] | None, full: Sizes, now: Sizes
    ) -> Constant | None:
        """A result at full size or one position per axis; None where it varies along a dynamic axis."""
        if axes is None or array.ndim != len(axes):
            return None
        for t, axis in enumerate(axes):
            names = [f.name for f in factors(axis)]
            if len(names) < 2 or _has_sum(axis) or array.shape[t] == 1:
                continue
            if array.shape[t] != size_of(axis, now):
                return None
            grid = array.reshape(*array.shape[:t], *(now[n] for n in names), *array.shape[t + 1 :])
            for j, n in enumerate(names):
                if now[n] != full[n]:
                    grid = grid.repeat(full[n], t + j)
            array = grid.reshape(*array.shape[:t], -1, *array.shape[t + 1 :])
        array = compressed(array)
        return array if all(array.shape[t] == 1 for t in self.analysis.graph.dynamic.get(name, ())) else None

    def plain(self, plan: Plan) -> dict[int, Constant]:
        """The inputs that hold sizes, positions or bounds, as far as they are known."""
        found = {}
        for i, name in enumerate(plan.node.inputs):
            known = plan.node.partial[i] if i < len(plan.node.partial) else None
            tensor = self.values[name].const_value if name in self.values else None
            if known is not None:
                found[i] = known
            elif tensor is not None:
                found[i] = read(tensor, name)
        return found


def compressed(array: Constant) -> Constant:
    """The array with one position on every axis along which it is constant, but for rounding."""
    for t in range(array.ndim):
        if array.shape[t] > 1:
            first = array.take([0], t)
            same = array == first
            if not same.all() and np.issubdtype(array.dtype, np.floating):
                rounding = 8 * min(np.finfo(array.dtype).eps, np.finfo(np.float32).eps)
                same = np.abs(array - first) <= rounding * np.abs(first)
            if same.all():
                array = first
    return array


def _named(side: Iterable[tuple[Term, ...] | None]) -> set[str]:
    return {f.name for axes in side for axis in axes or () for f in factors(axis)}


def _has_sum(term: Term) -> bool:
    return not isinstance(term, Factor) and (isinstance(term, Sum) or any(map(_has_sum, term.terms)))


def _whole(plan: Plan) -> set[str]:
    """The factors that a node has to see at full size, whatever stands there."""
    equation = plan.equation
    assert equation is not None and plan.rule is not None
    read, written = _named(equation.inputs), _named(equation.outputs)
    whole = set(equation.fixed)
    whole |= read - written - equation.averaged - {each.of for each in plan.spec.takes}
    if not (plan.rule.keeps or plan.rule.roles):  # a share of a total; a mean of equal numbers is that number
        whole |= equation.averaged
    if not plan.rule.keeps:
        whole |= written - read
    return whole | _summands(equation)


def _summands(equation: Equation) -> set[str]:
    """The factors of axes that are concatenations."""
    sums = (axis for axes in (*equation.inputs, *equation.outputs) for axis in axes or () if _has_sum(axis))
    return {f.name for axis in sums for f in factors(axis)}


def _varying(array: Constant, axes: tuple[Term, ...], full: Sizes) -> Iterable[str]:
    """The factors along which an array is not constant."""
    for t, axis in enumerate(axes):
        if array.shape[t] == 1:
            continue
        names = [f.name for f in factors(axis)]
        if len(names) == 1 or _has_sum(axis):
            yield from names
            continue
        grid = np.moveaxis(array, t, 0).reshape(*(full[n] for n in names), -1)
        yield from (
            n for j, n in enumerate(names) if compressed(np.moveaxis(grid, j, 0).reshape(full[n], -1)).shape[0] > 1
        )


def _shaped(array: Constant, axes: tuple[Term, ...], wanted: list[int], full: Sizes, now: Sizes) -> Constant:
    """A constant brought to the sizes that a node is run at."""
    for t, (axis, size) in enumerate(zip(axes, wanted, strict=True)):
        if array.shape[t] == size:
            continue
        if array.shape[t] == 1:
            array = np.repeat(array, size, t)
            continue
        names = [f.name for f in factors(axis)]
        grid = array.reshape(*array.shape[:t], *(full[n] for n in names), *array.shape[t + 1 :])
        for j, n in enumerate(names):
            if now[n] == 1:
                grid = grid.take([0], t + j)
        array = grid.reshape(*array.shape[:t], size, *array.shape[t + 1 :])
    return np.ascontiguousarray(array)


def _write(plan: Plan, write: Write, now: Sizes, attributes: dict[str, ir.Attr], feeds: dict[int, Constant]) -> None:
    """Set one parameter that holds sizes."""
    before = plan.node.sizes(write.parameter)
    entries = [None if e is None else size_of(parse_term(e), now) for e in write.entries]
    after = np.array(before if before is not None else entries, np.int64).reshape(-1)
    for j, entry in enumerate(entries):
        after[j] = after[j] if entry is None else entry
    if write.each_output:
        after = after[after > 0]
    if write.parameter in plan.node.formal:
        attributes.pop(write.instead_of or "", None)
        feeds[plan.node.formal.index(write.parameter)] = after.astype(
            np.asarray(before).dtype if before is not None else np.int64
        )
    elif np.ndim(before) == 0 and before is not None:
        attributes[write.parameter] = ir.AttrInt64(write.parameter, int(after[0]))
    else:
        attributes[write.parameter] = ir.AttrInt64s(write.parameter, after.tolist())
