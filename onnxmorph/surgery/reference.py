"""The zero-masked original: what a shrunk model has to compute.

Every parameter slice of a removed channel is zero. Where an op takes a statistic over an axis that is cut, it
sees the live positions only; where it sums over an axis of activations, the removed ones are zero. This is
built from the original graph op by op, not by the surgery it serves to check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Mask
from onnxmorph.notation import factors
from onnxmorph.propagate import Plan
from onnxmorph.surgery.emit import Emitter


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
            over = set(plan.equation.averaged)
            if any(reference.dead(name) for name in reference.read(plan, over)):
                reference.restrict(plan)
            else:
                reference.silence(plan)
    reference.emitter.graph.sort()
    return reference.emitter.model


class _Reference:
    def __init__(self, emitter: Emitter) -> None:
        self.emitter, self.analysis = emitter, emitter.analysis
        self.alive = emitter.copies > 0
        self.original = {name: name for name in self.analysis.rows}  # the tensor that an inserted one stands for

    def dead(self, name: str) -> list[tuple[int, Mask]]:
        """The axes of a tensor with dead positions, and which are alive."""
        rows = self.analysis.rows.get(name) or ()
        masks = [(t, np.asarray(self.alive[r].all(1))) for t, r in enumerate(rows) if r is not None]
        return [(t, mask) for t, mask in masks if not mask.all()]

    def mask_parameters(self) -> None:
        for name in self.analysis.parameters:
            value = self.emitter.values[name]
            given = self.emitter.weights.get(name)
            axes = self.dead(name)
            if (axes or given is not None) and value.const_value is not None:
                array = (value.const_value.numpy() if given is None else given).copy()
                for axis, mask in axes:
                    np.moveaxis(array, axis, 0)[~mask] = 0
                value.const_value = ir.Tensor(array, dtype=value.const_value.dtype, name=name)

    def read(self, plan: Plan, names: set[str]) -> Iterator[str]:
        """The inputs that have an axis with one of these factors."""
        assert plan.equation is not None
        for name, axes in zip(plan.node.inputs, plan.equation.inputs, strict=False):
            if name and axes is not None and names & {f.name for axis in axes for f in factors(axis)}:
                yield name

    def silence(self, plan: Plan) -> None:
        """Zero the dead positions of activations that the op sums over, unless a parameter does so already."""
        assert plan.equation is not None
        kept = {f.name for axes in plan.equation.outputs for axis in axes or () for f in factors(axis)}
        kept |= {each.of for each in plan.spec.takes}
        for i, (name, axes) in enumerate(zip(plan.node.inputs, plan.equation.inputs, strict=False)):
            gone = [
                (t, mask)
                for t, mask in self.dead(name)
                if axes is not None and not {f.name for f in factors(axes[t])} & kept
            ]
            if gone and name not in self.analysis.parameters:
                node = self.emitter.node(plan.node)
                node.replace_input_with(i, self.zeroed(node, node.inputs[i], gone, before=True))

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
                value = self.zeroed(at, value, axes, before=False)
                for user, i in users[output.name]:
                    user.replace_input_with(i, value)

    def gather(self, at: ir.Node, value: ir.Value | None, index: Array, axis: int, *, before: bool) -> ir.Value:
        assert value is not None
        constant = self.emitter.constant(f"{value.name}_live{axis}", index.astype(np.int64))
        return self.insert(at, ir.Node("", "Gather", [value, constant], [ir.AttrInt64("axis", axis)]), value, before)

    def zeroed(self, at: ir.Node, value: ir.Value | None, axes: list[tuple[int, Mask]], *, before: bool) -> ir.Value:
        """The tensor with its dead positions set to zero: chosen, for zero times what they hold may be no number."""
        assert value is not None
        kind = self.analysis.graph.kinds[self.original[value.name or ""]].numpy()
        choose = self.emitter.model.opset_imports[""] >= 9  # the first that has Where
        for axis, mask in axes:
            shape = [1] * len(self.analysis.rows[self.original[value.name or ""]])
            shape[axis] = len(mask)
            alive = mask.reshape(shape)
            constant = self.emitter.constant(f"{value.name}_mask{axis}", alive if choose else alive.astype(kind))
            zero = [self.emitter.constant(f"{value.name}_zero", np.zeros((), kind))] if choose else []
            node = ir.Node("", "Where" if choose else "Mul", [constant, value, *zero])
            value = self.insert(at, node, value, before)
            at = at if before else node
        return value

    def insert(self, at: ir.Node, node: ir.Node, source: ir.Value, before: bool) -> ir.Value:
        """Put a node that changes `source` beside another one."""
        output = node.outputs[0]
        output.name = f"{source.name}_{node.op_type}_{len(self.emitter.values)}"
        output.type = source.type
        self.emitter.values[output.name] = output
        self.original[output.name] = self.original[source.name or ""]
        (self.emitter.graph.insert_before if before else self.emitter.graph.insert_after)(at, node)
        return output
