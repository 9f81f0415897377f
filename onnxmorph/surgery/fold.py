"""What removed channels still say: constants folded into the next bias.

A channel whose scale is 0 is not 0: its shift, through the activations, still feeds every consumer. Constants
are followed channel by channel through the graph; where an op sums over removed channels that are constant,
their contribution moves into its bias, the running mean of the norm behind it, or the next addition.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.notation import Factor, Sum, Term, factors, size_of
from onnxmorph.positions import take
from onnxmorph.propagate import Plan
from onnxmorph.quantised import PLAIN, real, steps_of, stored

Values = Floats  # one number per position of an axis; NaN where the channel is not constant
Weights = dict[str, NDArray[Any]]


def fold(analysis: Analysis, copies: Array, full: bool = False) -> tuple[Weights, list[str]]:
    """The parameters that take up what removed channels say.

    Args:
        analysis: of the original model.
        copies: ``[channels + 1]`` of zeros and ones.
        full: give them in the shapes of the original, not of the shrunk model.

    Returns:
        the changed parameters, by name, and notes on what is not exact.
    """
    folding = _Folding(analysis, copies)
    if any(role == "scale" for role in analysis.roles.values()):
        for plan in analysis.plans:
            folding.visit(plan)
    weights = folding.changed
    if not full:
        for name in weights:
            for axis, rows in enumerate(analysis.rows[name]):
                if rows is not None:
                    weights[name] = weights[name].take(take(rows, copies).old, axis)
    return weights, folding.notes


class _Folding:
    def __init__(self, analysis: Analysis, copies: Array) -> None:
        self.analysis, self.alive = analysis, copies > 0
        self.constant: dict[str, tuple[int, Values]] = {}  # per tensor: an axis and its constants
        self.changed: Weights = {}
        self.notes: list[str] = []
        self.nodes = {v.name: n for n in analysis.graph.model.graph.all_nodes() for v in n.outputs}
        self.steps, self.stored = steps_of(analysis), stored(analysis)
        self.readers: dict[str, list[Plan]] = {}
        for plan in analysis.plans:
            for name in plan.node.inputs:
                self.readers.setdefault(name, []).append(plan)

    def visit(self, plan: Plan) -> None:
        rule, equation = plan.rule, plan.equation
        if rule is None or equation is None or not plan.node.counted:
            return
        if "scale" in rule.roles.values():
            self.silenced(plan)
        known = [(i, self.constant[n]) for i, n in enumerate(plan.node.inputs) if n in self.constant]
        if not known:
            return
        if plan.cost is not None and plan.cost.macs:
            for i, (axis, values) in known:
                self.absorb(plan, i, axis, values)
        elif rule.elementwise:
            self.apply(plan)
        elif rule.keeps:
            self.move(plan)
        elif plan.node.outputs[0] not in self.constant and any(_loud(values) for _, (_, values) in known):
            self.drop(plan, "constants are not followed through it")  # nor is it silenced by its own scale

    def dead(self, name: str, axis: int) -> Mask:
        rows = self.analysis.rows[name][axis]
        assert rows is not None
        return np.asarray(~self.alive[rows].all(1))

    def record(self, name: str, axis: int, values: Values) -> None:
        rows = (self.analysis.rows.get(name) or ())[axis : axis + 1]
        if rows and rows[0] is not None:
            values = np.where(self.dead(name, axis), values, np.nan)
            if np.isfinite(values).any():  # 0 as well: behind a sigmoid or a shift it is something
                self.constant[name] = (axis, values)

    def silenced(self, plan: Plan) -> None:
        """A norm: where the scale is 0 the result is the shift."""
        assert plan.rule is not None and plan.equation is not None
        inputs = {role: plan.node.inputs[i] for i, role in plan.rule.roles.items() if i < len(plan.node.inputs)}
        scale, shift = inputs.get("scale", ""), inputs.get("shift", "")
        index = next(i for i, role in plan.rule.roles.items() if role == "scale")
        axes = plan.equation.inputs[index]
        if (
            scale not in self.analysis.parameters
            or shift not in self.analysis.parameters
            or axes is None
            or len(axes) != 1
        ):
            return
        outputs = plan.equation.outputs[0] or ()
        if axes[0] in outputs:
            gamma, beta = (self.analysis.graph.weights(n).astype(np.float64) for n in (scale, shift))
            self.record(plan.node.outputs[0], outputs.index(axes[0]), np.where(gamma == 0, beta, np.nan))

    def apply(self, plan: Plan) -> None:
        """A function of single positions: evaluate it on the constants."""
        from onnx.reference import ReferenceEvaluator

        node = plan.node
        assert plan.rule is not None
        steps = {i for q in plan.rule.quantised for i in (q.scale, q.zero) if i is not None and i < len(node.inputs)}
        if any(prod(node.in_shapes[i] or ()) > 1 for i in steps):
            return self.drop(plan, "it has a scale for every channel")
        rank = len(node.out_shapes[0] or ())
        places = {
            rank - len(node.in_shapes[i] or ()) + self.constant[n][0]
            for i, n in enumerate(node.inputs)
            if n in self.constant
        }
        if len(places) != 1:
            return self.drop(plan, "they come along several axes")
        axis = places.pop()
        size = (node.out_shapes[0] or ())[axis]
        feeds: dict[str, Any] = {}
        lost = np.zeros(size, bool)  # positions that are not constant, where integers cannot say so
        whole = {
            name: not self.analysis.graph.dtypes[name].is_floating_point()
            for name in (*node.inputs, node.outputs[0])
            if name
        }
        for i, name in enumerate(node.inputs):
            if not name:
                continue
            array: Any
            shape = node.in_shapes[i] or ()
            local = axis - rank + len(shape)
            if name in self.constant:
                array = self.constant[name][1]
            elif name in self.analysis.graph.known:
                array = self.analysis.graph.known[name]
            elif name in self.analysis.parameters and all(s == 1 or t == local for t, s in enumerate(shape)):
                array = self.analysis.graph.weights(name).reshape(-1).astype(np.float64)
                array = array.reshape(()) if not shape else array
            else:
                array = np.full(size, np.nan)
            array = array.reshape(()) if i in steps else array
            if whole[name] or whole[node.outputs[0]]:
                lost |= np.isnan(np.asarray(array, np.float64))
            kind = self.analysis.graph.dtypes[name].numpy() if whole[name] else np.float32
            feeds[name] = (np.nan_to_num(array) if whole[name] else array).astype(kind)
        proto = ir.to_proto(self.nodes[node.outputs[0]])
        del proto.output[1:]
        with np.errstate(all="ignore"):
            result: Any = ReferenceEvaluator(proto).run(None, feeds)
        values = np.asarray(result[0], np.float64)
        if values.shape != (size,):
            return self.drop(plan, "they do not stay along their axis")
        values[lost] = np.nan
        said = np.any([np.nan_to_num(self.constant[n][1]) != 0 for n in node.inputs if n in self.constant], 0)
        if (said & np.isnan(values)).any():
            self.drop(plan, "another input is not constant there")
        self.record(node.outputs[0], axis, values)
        return None

    def move(self, plan: Plan) -> None:
        """Constants go where their positions go."""
        assert plan.equation is not None
        of: dict[str, Values] = {}
        for name, axes in zip(plan.node.inputs, plan.equation.inputs, strict=False):
            if name in self.constant and axes is not None:
                axis, values = self.constant[name]
                if not _take_apart(axes[axis], values, plan.sizes, of):
                    self.drop(plan, "they vary along several factors of the axis")
        for each in plan.spec.takes:
            if each.of in of:
                of[each.new] = of[each.of][each.index]
        for name, axes in zip(plan.node.outputs, plan.equation.outputs, strict=False):
            for axis, term in enumerate(axes or ()):
                if {f.name for f in factors(term)} & of.keys():
                    self.record(name, axis, _put_together(term, plan.sizes, of))

    def absorb(self, plan: Plan, i: int, axis: int, values: Values) -> None:
        """Add what removed constants contribute to the result, wherever a bias can take it."""
        if not _loud(values):
            return None
        node, equation = plan.node, plan.equation
        assert equation is not None and plan.rule is not None
        mine = equation.inputs[i]
        weights = [self.stored.get(n, n) for n in node.inputs]
        others = [j for j, axes in enumerate(equation.inputs) if axes is not None and j not in (i, plan.rule.bias)]
        others = [
            j for j in others if j < len(weights) and weights[j] and self.analysis.roles.get(weights[j]) != "quantiser"
        ]
        assert mine is not None
        if any(q.data == i for q in plan.rule.quantised):
            return self.drop(plan, "it computes in integers")
        if len(others) != 1 or weights[others[0]] not in self.analysis.parameters:
            return self.drop(plan, "it has no weight of its own")
        weight, axes = weights[others[0]], equation.inputs[others[0]] or ()
        if self.analysis.parameters[weight].shape != tuple(size_of(term, plan.sizes) for term in axes):
            return self.drop(plan, "its weight is broadcast")
        ids = {name: t for t, name in enumerate(plan.sizes)}
        quantised = self.analysis.parameters[weight].quantised
        array = real(self.analysis, weight, self.steps) if quantised else self.analysis.graph.weights(weight)
        weight_factors = [f.name for term in axes for f in factors(term)]
        vector_factors = [f.name for f in factors(mine[axis])]
        kept = {f.name for term in (*axes, *(equation.outputs[0] or ())) for f in factors(term)} | equation.fixed
        if any(f.name not in kept for term in mine for f in factors(term)):
            return self.drop(plan, "it sums over more than the weight has")
        out_axes = [
            t
            for t, term in enumerate(equation.outputs[0] or ())
            if {f.name for f in factors(term)} & set(weight_factors)
        ]
        if len(out_axes) != 1:
            return self.drop(plan, "its result has no single axis of channels")
        out = [f.name for f in factors((equation.outputs[0] or ())[out_axes[0]])]
        operands: list[Any] = [
            array.reshape([plan.sizes[n] for n in weight_factors]),
            [ids[n] for n in weight_factors],
            np.nan_to_num(values).reshape([plan.sizes[n] for n in vector_factors]),
            [ids[n] for n in vector_factors],
        ]
        delta = np.einsum(*operands, [ids[n] for n in out]).reshape(-1)
        if self.analysis.rows[node.outputs[0]][out_axes[0]] is not None:
            delta[self.dead(node.outputs[0], out_axes[0])] = 0
        if not delta.any():
            return None
        if any(np.ravel(node.attributes.get("pads", 0))) or node.attributes.get("auto_pad", "NOTSET") not in (
            "NOTSET",
            "VALID",
        ):
            self.notes.append(f"constants folded through {node} are not exact at its zero-padded border")
        if not self.give(plan, out_axes[0], delta):
            self.drop(plan, "nothing behind it has a bias")
        return None

    def drop(self, plan: Plan, reason: str) -> None:
        self.notes.append(f"constants of removed channels are dropped at {plan.node}: {reason}")

    def give(self, plan: Plan, axis: int, delta: Values) -> bool:
        """Into the op's own bias; else the running mean of the norm, or the parameter added, right behind it."""
        assert plan.rule is not None
        node = plan.node
        plain = node.attributes.get("alpha", 1) == node.attributes.get("beta", 1) == 1
        plain &= not node.attributes.get("activation")  # nothing behind it adds to its sum
        if plan.rule.bias is not None and plan.rule.bias < len(node.inputs) and plain:
            return self.add(node.inputs[plan.rule.bias], delta)
        following = self.readers.get(node.outputs[0], [])
        if len(following) != 1 or following[0].rule is None or following[0].equation is None or not plain:
            return False
        after = following[0]
        if "state" in following[0].rule.roles.values():
            first = min(i for i, role in following[0].rule.roles.items() if role == "state")
            return self.add(after.node.inputs[first], -delta)
        others = [n for n in after.node.inputs if n in self.analysis.parameters]
        return bool(following[0].rule.additive and others) and self.add(others[0], delta)

    def add(self, name: str, delta: Values) -> bool:
        if len(self.readers[name]) != 1 or name in self.analysis.trace.whole:
            return False
        name = self.stored.get(name, name)
        parameter = self.analysis.parameters.get(name)
        if parameter is None or len(self.readers[name]) != 1 or (parameter.quantised and parameter.dtype != "INT32"):
            return False  # fewer bits would lose most of it
        before = self.changed.get(name, self.analysis.graph.weights(name))
        if before.size != delta.size:
            return False
        delta = delta.reshape(before.shape)
        if parameter.quantised:
            delta = np.rint(delta / self.steps.get(name, PLAIN).scale)
        self.changed[name] = (before + delta).astype(before.dtype)
        return True


def _loud(values: Values) -> bool:
    """Whether there is a constant other than 0."""
    return bool(np.nan_to_num(values).any())


def _take_apart(term: Term, values: Values, sizes: Mapping[str, int], of: dict[str, Values]) -> bool:
    """Values of an axis to values of its factors; False if they vary along several factors, which then get none."""
    if isinstance(term, Factor):
        of[term.name] = values
        return True
    parts = [size_of(each, sizes) for each in term.terms]
    if isinstance(term, Sum):
        pieces = np.split(values, np.cumsum(parts)[:-1])
        return all([_take_apart(each, piece, sizes, of) for each, piece in zip(term.terms, pieces, strict=True)])
    grid = values.reshape(parts)
    found = not _loud(grid)
    for t, each in enumerate(term.terms):
        lines = np.moveaxis(grid, t, 0).reshape(parts[t], -1)
        first = lines[:, :1]
        if ((lines == first) | (np.isnan(lines) & np.isnan(first))).all():
            found |= _take_apart(each, first[:, 0], sizes, of)
    return found


def _put_together(term: Term, sizes: Mapping[str, int], of: Mapping[str, Values]) -> Values:
    if isinstance(term, Factor):
        return of.get(term.name, np.full(sizes[term.name], np.nan))
    pieces = [_put_together(each, sizes, of) for each in term.terms]
    if isinstance(term, Sum):
        return np.concatenate(pieces)
    known = [t for t, each in enumerate(term.terms) if {f.name for f in factors(each)} & of.keys()]
    if len(known) != 1:
        return np.full(size_of(term, sizes), np.nan)
    shape = [len(p) for p in pieces]
    line = [len(p) if t == known[0] else 1 for t, p in enumerate(pieces)]
    return np.broadcast_to(pieces[known[0]].reshape(line), shape).reshape(-1).copy()
