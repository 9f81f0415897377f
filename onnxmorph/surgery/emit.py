"""Write the graph of a structure: slice every parameter, rewrite every size that an op carries.

All that it knows about an op stands in the op's rule: which parameters hold sizes, in the axes of its
equation, and which hold positions. Arithmetic on shapes keeps running in the *original* sizes (each remaining
`Shape` is corrected at its output), and rules convert to the new sizes where an op reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common as passes

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array
from onnxmorph.graph import Node, holds_data
from onnxmorph.notation import parse_term, size_of
from onnxmorph.positions import count, moved, take
from onnxmorph.propagate import Plan
from onnxmorph.rules import Take, Write
from onnxmorph.surgery.reconnect import reconnect
from onnxmorph.surgery.topology import survey
from onnxmorph.weights import cut, made

Ints = NDArray[np.int64]


def emit(analysis: Analysis, copies: Array, weights: Mapping[str, NDArray[np.generic]] | None = None) -> ir.Model:
    """The model with every channel c copied ``copies[c]`` times (0 removes it).

    Args:
        analysis: of the model; its graph is not changed.
        copies: ``[channels + 1]``, ``copies[0] == 1``.
        weights: parameters already in their new shapes, by name, instead of slices of the model's own.

    Raises:
        TopologyError: the model does not hold together without the groups that go as a whole.
    """
    topology = survey(analysis, copies)
    emitter = Emitter(analysis, copies, weights or {})
    emitter.rewrite_all()
    if topology is not None:
        reconnect(emitter, topology)
    return emitter.finish()


def _sized(entries: Sequence[str | None], sizes: Mapping[str, int]) -> list[int | None]:
    return [None if entry is None else size_of(parse_term(entry), sizes) for entry in entries]


def insert(at: ir.Node, node: ir.Node, *, before: bool = True) -> None:
    """Put a node into the graph of another, beside it."""
    graph = at.graph
    assert graph is not None
    (graph.insert_before if before else graph.insert_after)(at, node)


@dataclass
class Emitter:
    """A clone of the model, and the edits that bring it to new sizes."""

    analysis: Analysis
    copies: Array
    weights: Mapping[str, NDArray[np.generic]]

    def __post_init__(self) -> None:
        self.model = self.analysis.graph.model.clone()
        graph = self.graph = self.model.graph
        self.values: dict[str, ir.Value] = {v.name or "": v for v in graph.initializers.values()}
        self.values |= {v.name or "": v for each in (graph, *graph.subgraphs()) for v in each.inputs}
        self.values |= {v.name: v for node in graph.all_nodes() for v in node.outputs if v.name}
        self.frozen: list[ir.Value] = [self.values[name] for name in self.analysis.graph.constants]

    def rewrite_all(self) -> None:
        """Cut all parameters, and bring every size that an op carries up to date."""
        for name in self.analysis.parameters:
            self.slice(name)
        self.freeze()
        for plan, rows in zip(self.analysis.plans, self.analysis.factor_rows, strict=True):
            self.rewrite(plan, rows)
            if plan.rule is not None and plan.rule.reads_shape:
                self.restore_shape(plan.node)
        self.declare_shapes()

    def finish(self) -> ir.Model:
        """The model, tidied up."""
        self.lower_constants()
        self.graph.sort()
        passes.RemoveUnusedNodesPass()(self.model)
        return self.model

    # -- parameters ----------------------------------------------------------------------------

    def changed(self, name: str) -> list[tuple[int, Array]]:
        """The axes of a tensor that change, and their channels."""
        rows = self.analysis.rows.get(name) or ()
        return [(t, r) for t, r in enumerate(rows) if r is not None and (self.copies[r] != 1).any()]

    def slice(self, name: str) -> None:
        """Cut a parameter, or take its new value."""
        value, changed = self.values[name], self.changed(name)
        tensor = value.const_value
        assert tensor is not None
        if name not in self.weights and not changed:
            return
        sizes = {axis: count(rows, self.copies) for axis, rows in changed}
        shape = [sizes.get(axis, size) for axis, size in enumerate(tensor.shape.numpy())]

        def make() -> NDArray[np.generic]:
            given = self.weights.get(name)
            return cut(tensor, name, {t: take(r, self.copies).old for t, r in changed}) if given is None else given

        value.const_value = made(tensor, shape, make)
        value.shape = ir.Shape(shape)

    # -- sizes and positions that ops carry ------------------------------------------------------

    def node(self, of: Node) -> ir.Node:
        """The clone's node for one of the graph."""
        node = self.values[next(o for o in of.outputs if o)].producer()
        assert node is not None
        return node

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """An initializer of that value, under that name or the next free one."""
        free, n = name, 1
        while free in self.values:
            n += 1
            free = f"{name}_{n}"
        value = ir.Value(name=free, const_value=ir.tensor(array, name=free), shape=ir.Shape(array.shape))
        value.type = ir.TensorType(ir.tensor(array).dtype)
        self.graph.register_initializer(value)
        self.values[free] = value
        return value

    def freeze(self) -> None:
        """Replace what is computed from shapes, and known before running, by its original value where it is read."""
        graph = self.analysis.graph
        read_by = dict.fromkeys(n for plan in self.analysis.plans for n in (*plan.node.inputs, *plan.node.captured))
        for name in (*read_by, *graph.outputs):
            if name in graph.derived and graph.static[name].all() and f"{name}_static" not in self.values:
                frozen = self.constant(f"{name}_static", graph.known[name])
                self.frozen.append(frozen)
                self.redirect(self.values[name], frozen, list(self.values[name].uses()))

    def redirect(self, old: ir.Value, new: ir.Value, users: Iterable[tuple[ir.Node, int]]) -> None:
        """Let these users, and the graph whose output it is, read another value; the model keeps its outputs' names."""
        for user, i in users:
            user.replace_input_with(i, new)
        if not old.is_graph_output() or old.graph is None:
            return
        graph = old.graph
        if new.producer() is None:  # an output has to be written in its own graph
            copy = ir.Node("", "Identity", [new])
            graph.append(copy)
            result = copy.outputs[0]
            result.name, result.type, result.shape = f"{new.name}_out", new.type, new.shape
            self.values[result.name] = new = result
        if graph is self.graph:
            old.name, new.name = new.name, old.name
        for i, value in enumerate(graph.outputs):
            if value is old:
                graph.outputs[i] = new

    def rewrite(self, plan: Plan, rows: Mapping[str, Array | None]) -> None:
        """Bring all sizes and positions that a node carries up to date."""
        sizes = {n: count(r, self.copies) if (r := rows.get(n)) is not None else s for n, s in plan.sizes.items()}
        for write in plan.spec.writes:
            self.write(plan, write, sizes)
        for each in plan.spec.takes:
            self.reindex(plan, rows, each)
        for pin in plan.spec.pins:
            if any(sizes[n] != plan.sizes[n] for n in ([pin.factor] if pin.factor else sizes)):
                self.set(plan.node, pin.parameter, np.array(pin.value))

    def write(self, plan: Plan, write: Write, sizes: Mapping[str, int]) -> None:
        """Bring one parameter that holds sizes up to date."""
        node = plan.node
        new, old = (_sized(write.entries, of) for of in (sizes, plan.sizes))
        axes, axes_before = (_sized(write.within or write.entries, of) for of in (sizes, plan.sizes))
        stale = [
            entry is not None and (entry, axis) != (entry_before, axis_before)
            for entry, entry_before, axis, axis_before in zip(new, old, axes, axes_before, strict=True)
        ]
        if not any(stale):
            return
        before = node.sizes(write.parameter)
        if before is None:  # e.g. a Split in equal parts
            before = np.array(old, np.int64)
        after = np.array(before, np.int64).reshape(-1)
        ratio = np.ones((2, len(after)), np.int64)
        for j, (entry, size) in enumerate(zip(new, old, strict=True)):
            if stale[j] and entry is not None and size is not None:
                after[j], ratio[:, j] = entry, (entry, size)
        there = after > 0 if write.each_output else np.ones(len(after), bool)  # an output that is empty goes
        after, ratio = after[there], ratio[:, there]
        target, index = self.node(node), node.input_index(write.parameter)
        shape = np.shape(before) if there.all() else after.shape
        if write.instead_of and write.parameter in node.formal:
            target.attributes.pop(write.instead_of, None)
        if index is None:
            return self.set(node, write.parameter, after.reshape(shape))
        source = target.inputs[index]
        assert source is not None
        static = self.analysis.graph.static.get(node.inputs[index], np.ones(len(there), bool)).reshape(-1)[there]
        if not static.all() and write.infers and (~static).sum() == 1 and not (after[static] < 0).any():
            after[~static] = -1
            static = np.ones_like(static)
        if static.all():
            kind = self.analysis.graph.known[node.inputs[index]].dtype
            self.set(node, write.parameter, after.reshape(shape).astype(kind))
        else:
            arrays = (each.reshape(shape) for each in (after, *ratio))
            target.replace_input_with(index, self.rescale(target, source, static.reshape(shape), *arrays))
        return None

    def set(self, node: Node, parameter: str, value: NDArray[np.generic]) -> None:
        """Give a parameter, an attribute or an input, a new value."""
        target = self.node(node)
        if parameter not in node.formal:
            scalar = ir.AttrFloat32 if value.dtype.kind == "f" else ir.AttrInt64
            target.attributes[parameter] = (ir.AttrInt64s if value.ndim else scalar)(parameter, value.tolist())
            return
        index = node.formal.index(parameter)
        target.resize_inputs(max(index + 1, len(target.inputs)))
        target.replace_input_with(index, self.constant(f"{node.outputs[0]}_{parameter}", value))

    def rescale(
        self, user: ir.Node, source: ir.Value, static: NDArray[np.bool_], fixed: Ints, times: Ints, per: Ints
    ) -> ir.Value:
        """``where(static, fixed, source * times // per)`` beside `user`: sizes of dynamic axes in new units."""
        name = source.name or "shape"
        steps: list[tuple[str, list[ir.Value | None]]] = [
            ("Mul", [source, self.constant(f"{name}_times", times)]),
            ("Div", [None, self.constant(f"{name}_per", per)]),
            ("Where", [self.constant(f"{name}_static", static), self.constant(f"{name}_sizes", fixed), None]),
        ]
        value = source
        for op, inputs in steps:
            node = ir.Node("", op, [value if v is None else v for v in inputs])
            value = node.outputs[0]
            value.name = f"{name}_{op}_{len(self.values)}"
            value.shape, value.type = ir.Shape(fixed.shape), ir.TensorType(ir.DataType.INT64)
            self.values[value.name] = value
            insert(user, node)
        return value

    def restore_shape(self, node: Node) -> None:
        """Correct a Shape that has to stay (a dimension is dynamic), so that it tells the original sizes."""
        shape, rows = node.in_shapes[0], self.analysis.rows.get(node.inputs[0])
        if shape is None or not self.changed(node.inputs[0]):
            return
        new = [s if r is None else count(r, self.copies) for s, r in zip(shape, rows or (), strict=True)]
        old_sizes, new_sizes = np.array(shape, np.int64), np.maximum(new, 1)  # what is empty has no shape to tell
        output = self.values[node.outputs[0]]
        dynamic = self.analysis.graph.dynamic.get(node.inputs[0], frozenset())
        static = np.array([t not in dynamic for t in range(len(shape))])
        if node.out_shapes[0] == ():  # Size: one number
            static, old_sizes, new_sizes = (np.asarray(x) for x in (static.all(), old_sizes.prod(), new_sizes.prod()))
        else:
            window = slice(node.attributes.get("start", 0), node.attributes.get("end"))
            static, old_sizes, new_sizes = static[window], old_sizes[window], new_sizes[window]
        users = list(output.uses())
        value = self.rescale(self.node(node), output, np.asarray(static), old_sizes, old_sizes, new_sizes)
        self.redirect(output, value, users)

    def reindex(self, plan: Plan, rows: Mapping[str, Array | None], of: Take) -> None:
        """Positions that an op picks: find each where it stands now."""
        source = rows.get(of.of)
        if source is None or (self.copies[source] == 1).all():
            return
        index = plan.node.input_index(of.parameter)
        assert index is not None
        name = f"{plan.node.outputs[0]}_{of.parameter}"
        kind = self.analysis.graph.known[plan.node.inputs[index]].dtype
        new = moved(source, of.index, self.copies).astype(kind)
        self.node(plan.node).replace_input_with(index, self.constant(name, new))

    def lower_constants(self) -> None:
        """Put constants back into Constant nodes: as initializers they would count as parameters."""
        first = self.graph[0]
        for value in self.frozen:
            tensor = value.const_value
            if tensor is None or not (holds_data(tensor.dtype) or value.name in self.analysis.parameters):
                continue
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)])
            value.replace_all_uses_with(node.outputs[0])
            del self.graph.initializers[value.name or ""]
            node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = (
                value.name,
                value.type,
                value.shape,
            )
            self.graph.insert_before(first, node)

    # -- the rest --------------------------------------------------------------------------------

    def declare_shapes(self) -> None:
        """Bring the recorded shapes of all tensors up to date.

        A symbol in the place of a cut size (``6*batch``) says what is no longer so, and a runtime plans its memory by
        symbols: it goes.
        """
        for name, value in self.values.items():
            if value.shape is None or value.is_initializer():
                continue
            dims: Sequence[int | ir.SymbolicDim] = list(value.shape)
            for axis, rows in self.changed(name):
                if axis < len(dims):
                    size = count(rows, self.copies) if isinstance(dims[axis], int) else ir.SymbolicDim(None)
                    dims = [*dims[:axis], size, *dims[axis + 1 :]]
            value.shape = ir.Shape(dims)
