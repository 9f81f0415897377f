"""Edits that take whole groups out of a graph: what is empty or constant goes, and what lives is joined again.

Where a constant meets something live, it becomes a small initializer (or vanishes, if it changes nothing), spread
out where the op needs it at full size. Where a part left its concatenation, the others close up; a node that then
only passes on its input is bypassed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxmorph.errors import TopologyError
from onnxmorph.graph import Node
from onnxmorph.notation import Factor, Product, Sum, Term, size_of
from onnxmorph.positions import count
from onnxmorph.propagate import Plan
from onnxmorph.surgery.constants import Constants
from onnxmorph.surgery.topology import Topology, axes_of_input, read_by, refusal

if TYPE_CHECKING:
    from onnxmorph.surgery.emit import Emitter

Place = tuple[str, int]  # an axis of a tensor
Shape = tuple[int | Place, ...]  # sizes, and places that have the size where it is dynamic


def reconnect(emitter: Emitter, topology: Topology) -> None:
    """Bring the graph of an emitter, whose sizes are written already, to the given topology.

    Raises:
        TopologyError: a constant or a shape would have to follow a dynamic size that nothing live has.
    """
    _Reconnection(emitter, topology).run()


class _Reconnection:
    def __init__(self, emitter: Emitter, topology: Topology) -> None:
        self.emitter, self.topology = emitter, topology
        self.graph = emitter.analysis.graph
        self.constants = Constants(topology, emitter.values, emitter.copies).found
        self.needed = topology.needs(self.constants)
        self.producer = {o: plan for plan in emitter.analysis.plans for o in plan.node.outputs if o}
        self.spread: dict[tuple[object, ...], ir.Value] = {}  # by name if expanded, type, shapes, and values

    def run(self) -> None:
        for plan, sizes in zip(self.emitter.analysis.plans, self.topology.sizes, strict=True):
            if not any(o in self.needed and not self.settled(o) for o in plan.node.outputs):
                continue
            if plan.rule is not None and plan.rule.reads_shape:
                self.redirect(plan.node)
            elif not self.bypass(plan, sizes):
                self.join(plan)

    def settled(self, name: str) -> bool:
        return name in self.topology.constant and name in self.constants

    def there(self, name: str) -> bool:
        """Whether a tensor is in the result, as a tensor that is computed."""
        known = name in self.needed and name not in self.topology.empty and not self.settled(name)
        return known and name not in self.emitter.analysis.parameters

    # -- nodes -----------------------------------------------------------------------------------

    def join(self, plan: Plan) -> None:
        """Give a node its constants, and take out what is empty."""
        node, names = self.emitter.node(plan.node), plan.node.inputs
        for i, name in enumerate(names):
            if self.settled(name):
                node.replace_input_with(i, self.constant(plan, i))
        for name in plan.node.captured:
            if self.settled(name):
                self.emitter.values[name].replace_all_uses_with(self.brought(name, self.full(plan, name)))
        inputs = [v for v, n in zip(node.inputs, names, strict=False) if n not in self.topology.empty]
        if len(inputs) < len(names):
            if plan.node.outputs[0] in self.topology.constant:  # a sum over nothing that could not be settled
                raise self.unknown(plan.node.outputs[0], f"{plan.node} cannot be evaluated ahead")
            for i, value in enumerate(inputs):
                node.replace_input_with(i, value)
            node.resize_inputs(len(inputs))
        outputs = [v for v, n in zip(node.outputs, plan.node.outputs, strict=True) if n not in self.topology.empty]
        if len(outputs) < len(node.outputs):
            attributes = list(node.attributes.values())
            less = ir.Node(
                node.domain, node.op_type, list(node.inputs), attributes, num_outputs=len(outputs), name=node.name
            )
            self.emitter.graph.insert_before(node, less)
            for old, new in zip(outputs, less.outputs, strict=True):
                self.replace(old, new)

    def bypass(self, plan: Plan, sizes: Mapping[str, int]) -> bool:
        """Leave out a node that does nothing but pass on one of its inputs; False if it does more."""
        if plan.equation is None:
            return False
        names, node = plan.node.inputs, self.emitter.node(plan.node)
        shown = [v for v, n in zip(node.outputs, plan.node.outputs, strict=True) if n and n not in self.topology.empty]
        left = [i for i in read_by(plan) if names[i] not in self.topology.empty]
        rest = [i for i in left if not self.neutral(plan, i)]
        if len(shown) != 1 or len(rest) != 1 or self.settled(names[rest[0]]):
            return False
        silent = len(rest) < len(left) and all(self.gives(plan, rest[0], a) for a in plan.equation.outputs[0] or ())
        if not (silent or _moves_all(plan, rest[0], sizes)):
            return False
        source = node.inputs[rest[0]]
        assert source is not None
        self.replace(shown[0], source)
        return True

    def neutral(self, plan: Plan, i: int) -> bool:
        """Whether an input is a constant that leaves the other as it is."""
        number = plan.rule.neutral.get(i) if plan.rule is not None else None
        name = plan.node.inputs[i]
        return number is not None and self.settled(name) and bool((self.constants[name] == number).all())

    def gives(self, plan: Plan, i: int, axis: Term) -> bool:
        """Whether an input has an axis of the output at full size, so that others may be broadcast along it."""
        axes, output = axes_of_input(plan, i), plan.equation.outputs[0] if plan.equation is not None else None
        if axis not in axes or output is None or axis not in output:
            return False
        at, shape, dynamic = axes.index(axis), plan.node.in_shapes[i] or (), self.graph.dynamic
        wide = output.index(axis) in dynamic.get(plan.node.outputs[0], ())
        return shape[at] == size_of(axis, plan.sizes) and (not wide or at in dynamic.get(plan.node.inputs[i], ()))

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Let all that reads one tensor read another; a graph output keeps its name."""
        name, producer = old.name or "", old.producer()
        assert producer is not None
        output = old in self.emitter.graph.outputs
        if output and (new.producer() is None or new in self.emitter.graph.outputs):
            node = ir.Node("", "Identity", [new])
            self.emitter.graph.insert_before(producer, node)
            new = node.outputs[0]
        if output or new.name is None:
            old.name = f"{name}_before"
            new.name, new.shape, new.type = name, old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self.emitter.values[name] = new

    def redirect(self, node: Node) -> None:
        """Take a shape that is still needed from tensors that are still there."""
        name, shape = node.inputs[0], node.in_shapes[0]
        if shape is None or self.there(name):
            return
        places: list[int | Place] = list(shape)
        for t in self.graph.dynamic.get(name, ()):
            places[t] = self.place(name, t)
        if node.out_shapes[0] == ():
            raise self.unknown(name, f"{node} counts its elements")
        window = slice(node.attributes.get("start", 0), node.attributes.get("end"))
        self.emitter.values[node.outputs[0]].replace_all_uses_with(self.vector(tuple(places[window])))

    # -- constants -------------------------------------------------------------------------------

    def constant(self, plan: Plan, i: int) -> ir.Value:
        """A constant as a node reads it: with one position on the axes that the op broadcasts."""
        name = plan.node.inputs[i]
        shape = list(self.full(plan, name, i))
        for t, axis in enumerate(axes_of_input(plan, i)):
            broadcast = isinstance(axis, Factor) and "~" in axis.name and self.constants[name].shape[t] == 1
            if broadcast and any(self.gives(plan, j, axis) for j, n in enumerate(plan.node.inputs) if self.there(n)):
                shape[t] = 1
        return self.brought(name, tuple(shape))

    def full(self, plan: Plan, name: str, i: int | None = None) -> Shape:
        """The whole shape of a constant, for a node that reads it (as its i-th input)."""
        rows, copies = self.emitter.analysis.rows.get(name), self.emitter.copies
        shape: list[int | Place] = list(self.graph.shapes.get(name) or ())
        for t, of in enumerate(rows or ()):
            shape[t] = shape[t] if of is None else count(of, copies)
        for t in self.graph.dynamic.get(name, ()):
            beside = [] if i is None else self.beside(plan, axes_of_input(plan, i)[t:][:1])
            shape[t] = beside[0] if beside else self.place(name, t)
        return tuple(shape)

    def beside(self, plan: Plan, axis: Sequence[Term]) -> list[Place]:
        """Axes of a node's live inputs that are the same factor."""
        return [
            (name, t)
            for j, name in enumerate(plan.node.inputs)
            if self.there(name)
            for t, term in enumerate(axes_of_input(plan, j))
            if (term,) == tuple(axis) and isinstance(term, Factor) and t in self.graph.dynamic.get(name, ())
        ]

    def place(self, name: str, t: int) -> Place:
        """An axis of something that is there, which has the size of a dynamic axis of something that is not."""
        found = self.trace(name, t)
        if found is None:
            raise self.unknown(name, f"the size of axis {t} of {name!r} is only known while running")
        return found

    def trace(self, name: str, t: int) -> Place | None:
        """Follow an axis up the graph, through equations, to a tensor that is there."""
        if self.there(name) or name in self.graph.inputs:
            return name, t
        plan = self.producer.get(name)
        if plan is None or plan.equation is None:
            return None
        axes = plan.equation.outputs[plan.node.outputs.index(name)]
        if axes is None:
            return None
        single = Product(())  # an axis that had one position while it was analysed
        many = self.graph.dynamic.get(name, frozenset())
        for i, source in enumerate(plan.node.inputs):
            above, of = axes_of_input(plan, i), self.graph.dynamic.get(source, frozenset())
            if [above[s] for s in of].count(single) != [axes[s] for s in many].count(single):
                continue  # several dynamic axes were merged into one, or one was split
            for s in of:
                if above[s] == axes[t] and (axes[t] != single or [above[s] for s in of].count(single) == 1):
                    return self.trace(source, s)
        return None

    def unknown(self, name: str, what: str) -> TopologyError:
        causes = self.topology.constant.get(name) or self.topology.empty.get(name, frozenset())
        output = next(iter(self.needed.values()))
        return refusal("topology-dynamic", what, causes, self.needed.get(name, output))

    def brought(self, name: str, shape: Shape) -> ir.Value:
        """A constant as an initializer, expanded if that is not its whole shape; equal initializers are one."""
        array = self.constants[name]
        spread = name if shape != array.shape else ""  # shared, it would take up memory from one reader to the next
        key = (spread, array.dtype.str, array.shape, array.tobytes(), shape)
        if key not in self.spread:
            if shape == array.shape:
                value = self.emitter.constant(f"{name}_constant", array)
                if sum(size > 1 for size in array.shape) != 1:  # a number or a map, and no vector such as a bias
                    self.emitter.frozen.append(value)
            else:
                value = self.add("Expand", [self.brought(name, array.shape), self.vector(shape)], name)
                value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            self.spread[key] = value
        return self.spread[key]

    def vector(self, shape: Shape) -> ir.Value:
        """A shape as a tensor of integers."""
        sizes = np.array([s if isinstance(s, int) else 1 for s in shape], np.int64)
        value = self.emitter.constant("shape", sizes)
        for name in dict.fromkeys(s[0] for s in shape if not isinstance(s, int)):
            there = np.array([not isinstance(s, int) and s[0] == name for s in shape])
            index = np.array([s[1] if not isinstance(s, int) and s[0] == name else 0 for s in shape], np.int64)
            whole = self.add("Shape", [self.emitter.values[name]], name)
            picked = self.add("Gather", [whole, self.emitter.constant("axes", index)], name)
            value = self.add("Where", [self.emitter.constant("dynamic", there), picked, value], name)
        return value

    def add(self, op: str, inputs: Sequence[ir.Value], name: str) -> ir.Value:
        """A new node's output; of integers unless told."""
        node = ir.Node("", op, inputs)
        value, values = node.outputs[0], self.emitter.values
        value.name, value.type = f"{name}_{op}_{len(values)}", ir.TensorType(ir.DataType.INT64)
        values[value.name] = value
        self.emitter.graph.append(node)
        return value


def _moves_all(plan: Plan, i: int, sizes: Mapping[str, int]) -> bool:
    """Whether a node that only moves positions has nothing left to do, after parts left a concatenation."""
    if plan.rule is None or plan.rule.cost is not None or plan.rule.elementwise or plan.equation is None:
        return False
    axes = axes_of_input(plan, i)
    whole = (o or () for o in plan.equation.outputs if all(size_of(axis, sizes) for axis in o or ()))
    output = next(whole, None)
    if output is None:
        return False
    before, after = ([_left(axis, sizes) for axis in side] for side in (axes, output))
    return before == after and (*before, *after) != (*axes, *output)


def _left(term: Term, sizes: Mapping[str, int]) -> Term:
    """A term without the parts that are empty."""
    if not isinstance(term, Sum):
        return term
    terms = tuple(_left(each, sizes) for each in term.terms if size_of(each, sizes))
    return terms[0] if len(terms) == 1 else Sum(terms)
