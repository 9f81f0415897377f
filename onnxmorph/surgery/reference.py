"""The zero-masked original: what a shrunk model has to compute.

Every parameter slice of a removed channel is zero; of a quantised parameter it is the zero point, and scales and zero
points stay. Where an op takes a statistic over an axis that is cut, it sees the live positions only; where it sums over
an axis of activations, the removed ones are zero. This is built from the original graph op by op, not by the surgery it
serves to check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Mask
from onnxmorph.graph import read
from onnxmorph.notation import Factor, Sum, Term, factors
from onnxmorph.propagate import Plan
from onnxmorph.quantised import PLAIN, steps_of, stored
from onnxmorph.surgery.emit import Emitter, insert
from onnxmorph.weights import made


def masked(analysis: Analysis, copies: Array, weights: Mapping[str, NDArray[np.generic]] | None = None) -> ir.Model:
    """The original model with the channels of ``copies == 0`` silenced.

    Args:
        analysis: of the original.
        copies: ``[channels + 1]`` of zeros and ones.
        weights: parameters in their full shapes, by name, instead of the model's own.
    """
    reference = _Reference(Emitter(analysis, copies, weights or {}))
    reference.mask_parameters()
    for plan in analysis.plans:
        if plan.equation is not None and plan.node.counted:
            over = any(reference.dead(name) for name in reference.read(plan, set(plan.equation.averaged)))
            lives = all(mask.any() for name in plan.node.inputs for _, mask in reference.dead(name))
            if over and lives:
                reference.restrict(plan)
            else:
                reference.silence(plan)
    reference.emitter.graph.sort()
    return reference.emitter.model


class _Reference:
    def __init__(self, emitter: Emitter) -> None:
        self.emitter, self.analysis = emitter, emitter.analysis
        self.alive = emitter.copies > 0
        self.steps = steps_of(self.analysis)
        known = {n for n, p in self.analysis.parameters.items() if not p.quantised or n in self.steps}
        # Tensors whose dead positions stand for zero, because a parameter's do.
        self.silent = known | {name for name, source in stored(self.analysis).items() if source in known}
        self.original: dict[str, str] = {}  # of every inserted tensor the one that it stands for

    def dead(self, name: str) -> list[tuple[int, Mask]]:
        """The axes of a tensor with dead positions, and which are alive."""
        rows = self.analysis.rows.get(name) or ()
        masks = [(t, np.asarray(self.alive[r].all(1))) for t, r in enumerate(rows) if r is not None]
        return [(t, mask) for t, mask in masks if not mask.all()]

    def mask_parameters(self) -> None:
        for name in self.analysis.parameters:
            value = self.emitter.values[name]
            given = self.emitter.weights.get(name)
            axes = self.dead(name) if self.analysis.roles.get(name) != "quantiser" else []
            if (axes or given is not None) and value.const_value is not None:
                make = partial(self.masked, value.const_value, name, given, axes)
                value.const_value = made(value.const_value, self.analysis.parameters[name].shape, make)

    def masked(
        self,
        tensor: ir.TensorProtocol,
        name: str,
        given: NDArray[np.generic] | None,
        axes: list[tuple[int, Mask]],
    ) -> NDArray[np.generic]:
        """A parameter, or what is given in its place, with its dead positions at zero."""
        array = (read(tensor, name) if given is None else given).copy()
        for axis, mask in axes:
            zero = np.broadcast_to(self.steps.get(name, PLAIN).zero, array.shape).astype(array.dtype)
            np.moveaxis(array, axis, 0)[~mask] = np.moveaxis(zero, axis, 0)[~mask]
        return array

    def read(self, plan: Plan, names: set[str]) -> Iterator[str]:
        """The inputs that have an axis with one of these factors."""
        assert plan.equation is not None
        for name, axes in zip(plan.node.inputs, plan.equation.inputs, strict=False):
            if name and axes is not None and names & {f.name for axis in axes for f in factors(axis)}:
                yield name

    def silence(self, plan: Plan) -> None:
        """Zero the dead positions of activations that the op sums over, unless a parameter does so already."""
        assert plan.equation is not None and plan.rule is not None
        taken = {each.of for each in plan.spec.takes}
        kept = [taken.union(*map(_names, axes)) for axes in plan.equation.outputs if axes is not None]
        for i, (name, axes) in enumerate(zip(plan.node.inputs, plan.equation.inputs, strict=False)):
            gone = [
                (t, mask)
                for t, mask in self.dead(name)
                if axes is not None and any(_summed(axes[t], names) for names in kept)
            ]
            if gone and name not in self.silent:
                node = self.emitter.node(plan.node)
                value = node.inputs[i]
                if self.analysis.graph.dtypes[name].is_integer():
                    zeros = [q.zero for q in plan.rule.quantised if q.data == i and q.zero is not None]
                    point = node.inputs[zeros[0]] if zeros and zeros[0] < len(node.inputs) else None
                    node.replace_input_with(i, self.where(node, value, gone, point))
                    continue
                node.replace_input_with(i, self.zeroed(node, value, gone, before=True))

    def restrict(self, plan: Plan) -> None:
        """Run one op on the live positions of its inputs, and put its outputs back among zeros."""
        node = self.emitter.node(plan.node)
        users = {v.name: list(v.uses()) for v in node.outputs}
        for i, name in enumerate(plan.node.inputs):
            for axis, mask in self.dead(name):
                value = self.gather(node, node.inputs[i], np.flatnonzero(mask), axis, before=True)
                node.replace_input_with(i, value)
        index = self.analysis.plans.index(plan)
        self.emitter.rewrite(plan, self.analysis.factor_rows[index])
        for output in node.outputs:
            value, at = output, node
            axes = self.dead(output.name or "")
            for axis, mask in axes:
                place = np.where(mask, np.cumsum(mask) - 1, 0)
                value = self.gather(at, value, place, axis, before=False)
                at = value.producer() or at
            if axes:
                if not self.dtype(output).is_integer():  # who sums over integers silences them with their zero point
                    value = self.zeroed(at, value, axes, before=False)
                self.emitter.redirect(output, value, users[output.name])

    def gather(self, at: ir.Node, value: ir.Value | None, index: Array, axis: int, *, before: bool) -> ir.Value:
        assert value is not None
        constant = self.emitter.constant(f"{value.name}_live{axis}", index.astype(np.int64))
        return self.insert(at, ir.Node("", "Gather", [value, constant], [ir.AttrInt64("axis", axis)]), before)

    def zeroed(self, at: ir.Node, value: ir.Value | None, axes: list[tuple[int, Mask]], *, before: bool) -> ir.Value:
        """The tensor with its dead positions set to zero: chosen, for zero times what they hold may be no number."""
        assert value is not None
        kind, opsets = self.dtype(value).numpy(), self.emitter.model.opset_imports
        choose = opsets.get("", opsets.get("ai.onnx", 1)) >= 9  # the first that has Where
        for axis, mask in axes:
            alive = self.across(value, axis, mask)
            if choose:
                zero = self.emitter.constant(f"{value.name}_zero", np.zeros((), kind))
                node = ir.Node("", "Where", [self.emitter.constant(f"{value.name}_mask{axis}", alive), value, zero])
            else:  # the dead show a live value first
                shown = np.where(mask, np.arange(len(mask)), mask.argmax())
                value = self.gather(at, value, shown, axis, before=before)
                at = at if before else (value.producer() or at)
                mask_of = self.emitter.constant(f"{value.name}_mask{axis}", alive.astype(kind))
                node = ir.Node("", "Mul", [value, mask_of])
            value = self.insert(at, node, before, of=value)
            at = at if before else node
        return value

    def where(
        self, at: ir.Node, value: ir.Value | None, axes: list[tuple[int, Mask]], zero: ir.Value | None
    ) -> ir.Value:
        """The tensor of integers with its dead positions set to the zero point: in int32, as ONNX Runtime wants it."""
        assert value is not None and value.name is not None
        narrow, wide = self.dtype(value), [ir.AttrInt64("to", ir.DataType.INT32)]
        value = self.insert(at, ir.Node("", "Cast", [value], wide), before=True)
        if zero is None:
            point = self.emitter.constant(f"{value.name}_zero", np.zeros((), np.int32))
        else:
            point = self.insert(at, ir.Node("", "Cast", [zero], wide), before=True)
        for axis, mask in axes:
            alive = self.emitter.constant(f"{value.name}_mask{axis}", self.across(value, axis, mask))
            value = self.insert(at, ir.Node("", "Where", [alive, value, point]), before=True, of=value)
        return self.insert(at, ir.Node("", "Cast", [value], [ir.AttrInt64("to", narrow)]), before=True)

    def across(self, value: ir.Value, axis: int, mask: Mask) -> Mask:
        """The mask of one axis, to broadcast against the tensor."""
        shape = [1] * len(self.analysis.rows[self.root(value)])
        shape[axis] = len(mask)
        return mask.reshape(shape)

    def root(self, value: ir.Value) -> str:
        """The tensor of the original that an inserted one stands for."""
        return self.original.get(value.name or "", value.name or "")

    def dtype(self, value: ir.Value) -> ir.DataType:
        return self.analysis.graph.dtypes[self.root(value)]

    def insert(self, at: ir.Node, node: ir.Node, before: bool, of: ir.Value | None = None) -> ir.Value:
        output, source = node.outputs[0], of or node.inputs[0]
        assert source is not None
        output.name = f"{source.name}_{node.op_type}_{len(self.emitter.values)}"
        self.original[output.name] = self.root(source)
        self.emitter.values[output.name] = output
        insert(at, node, before=before)
        return output


def _names(term: Term) -> set[str]:
    return {f.name for f in factors(term)}


def _summed(term: Term, kept: set[str]) -> bool:
    """Whether a factor of the term is in no axis of an output that keeps these; of a sum, all its parts."""
    if isinstance(term, Factor):
        return term.name not in kept
    return (all if isinstance(term, Sum) else any)(_summed(each, kept) for each in term.terms)
