"""The walk over a graph: every node's plan, labels for every axis, and what has to stay."""

from __future__ import annotations

import numpy as np

from onnxmorph.axes import LONGEST, Channels
from onnxmorph.errors import RuleError
from onnxmorph.graph import Graph, Node, Parameter, Shape
from onnxmorph.notation import Equation, Factor, Sum, parse
from onnxmorph.propagate import AxisLabels, Plan, Reasons, propagate
from onnxmorph.rules import TABLE, Rule, Spec

UNFOLLOWED = ("body", "what its body does with a tensor is not followed")


class Walk:
    """One pass over the graph, node by node in order.

    ``labels`` are those of every tensor's axes, ``plans`` one per node, ``fresh`` the parameters that have channels and
    ``roles`` what norms take them for. ``values`` are tensors that a node reads as values.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.channels, self.reasons = graph, Channels(), Reasons()
        self.labels: dict[str, AxisLabels | None] = {}
        self.plans: list[Plan] = []
        self.roles: dict[str, str] = {}
        self.fresh: dict[str, Parameter] = {}
        self.values: list[tuple[str, Node]] = []  # tensors read as values, and by which node
        self.points: dict[str, Shape] = {}  # tensors whose values number the positions of another, of that shape
        for name in graph.inputs:
            number = self.reasons.add("graph-input", f"graph input {name!r} keeps its shape", (name,))
            shape = graph.shapes.get(name)
            self.labels[name] = None if shape is None else (number,) * len(shape)

    def visit(self, node: Node) -> None:
        """Add one node's plan; where no rule covers the node, everything it touches is fixed."""
        rule = TABLE.get(("" if node.domain == "ai.onnx" else node.domain, node.type))
        if rule is None:
            return self.refuse(node, "unknown-op", "no rule covers this op")
        if node.captured:
            return self.refuse(node, *(rule.bind(node).refuse or UNFOLLOWED), rule)
        spec = rule.bind(node)
        if not (node.counted or rule.reads_shape or spec.fresh or any(self.has_channels(n) for n in node.inputs)):
            self.plans.append(Plan(node, rule, Spec(""), None, {}, {}))  # arithmetic on integers: no channels
            self.labels.update((n, (None,) * len(s)) for n, s in zip(node.outputs, node.out_shapes, strict=True) if s)
            return None
        if spec.refuse:
            return self.refuse(node, *spec.refuse, rule)
        equation = parse(spec.equation)
        if None in (*node.in_shapes, *node.out_shapes) and any(
            name and axes is not None and shape is None
            for names, of, side in (
                (node.inputs, node.in_shapes, equation.inputs),
                (node.outputs, node.out_shapes, equation.outputs),
            )
            for name, shape, axes in zip(names, of, side, strict=False)
        ):
            return self.refuse(node, "unknown-shape", "a shape cannot be inferred", rule)
        for i, name in enumerate(node.inputs):
            if i < len(equation.inputs) and equation.inputs[i] is not None:
                self.label(name, any(i in (q.data, q.scale, q.zero) for q in rule.quantised))
                if i in rule.roles and name in self.fresh:
                    self.roles[name] = rule.roles[i]
            elif i not in rule.unread:
                self.values.append((name, node))
            if self.points.get(name) != spec.points_in.get(i):
                reason = f"{node} depends on which positions the values of {name!r} number"
                self.fix(self.labels.get(name), "positions", reason, node.tensors)
        inputs = [self.labels.get(n) if n else None for n in node.inputs]
        self.hold_dynamic(node, spec, equation)
        try:
            plan, outputs = propagate(node, rule, spec, inputs, self.channels, self.reasons)
        except RuleError as e:  # a form of the op that its rule does not know: sound to fix, and reported
            return self.refuse(node, e.code, str(e), rule)
        self.plans.append(plan)
        self.points.update((node.outputs[j], shape) for j, shape in spec.points_out.items())
        for name, labels in zip(node.outputs, outputs, strict=False):
            if name:
                self.labels[name] = labels

    def hold_dynamic(self, node: Node, spec: Spec, equation: Equation) -> None:
        """Fix what is cut up by position along an axis that the batch is part of: at each size it is another."""
        taken = {take.of for take in spec.takes}
        for name, axes, shape in zip(node.inputs, equation.inputs, node.in_shapes, strict=False):
            dynamic = self.graph.dynamic.get(name)
            if dynamic is None or axes is None or shape is None or len(axes) != len(shape):
                continue
            for axis in dynamic:
                term = axes[axis]
                if isinstance(term, Sum) or (isinstance(term, Factor) and term.name in taken):
                    reason = f"{node} picks positions of axis {axis}, whose size depends on the inputs"
                    self.fix((self.labels.get(name) or ())[axis : axis + 1], "dynamic", reason, node.tensors)

    def has_channels(self, name: str) -> bool:
        """Whether a tensor is a parameter, or has an axis that may change."""
        labels = self.labels.get(name) or ()
        return name in self.graph.parameters or any(isinstance(each, np.ndarray) for each in labels)

    def label(self, name: str, quantised: bool = False) -> None:
        """Give a parameter its fresh channels when it is first used as such."""
        parameter = self.graph.parameters.get(name) or (self.graph.sums.get(name) if quantised else None)
        if parameter is not None and name not in self.labels:
            text = f"an axis of {name!r} has more than {LONGEST:,} positions, or the model has too many of them"
            long = self.reasons.add("too-long", text, (name,))
            room = [0 not in parameter.shape and self.channels.admits(s) for s in parameter.shape]  # nothing has none
            self.labels[name] = tuple(
                self.channels.fresh(s)[:, None] if held else long for s, held in zip(parameter.shape, room, strict=True)
            )
            self.fresh[name] = parameter

    def refuse(self, node: Node, code: str, reason: str, rule: Rule | None = None) -> None:
        """Fix all that a node touches."""
        reason = reason if str(node) in reason else f"{node}: {reason}"
        for name in (*node.inputs, *node.captured):
            self.label(name)
            self.fix(self.labels.get(name), code, reason, node.tensors)
        number = self.reasons.add(code, reason, node.tensors)
        for name, shape in zip(node.outputs, node.out_shapes, strict=True):
            self.labels[name] = None if shape is None else (number,) * len(shape)
        self.plans.append(Plan(node, rule, Spec("", refuse=(code, reason)), None, {}, {}))

    def fix(self, labels: AxisLabels | None, code: str, reason: str, at: tuple[str, ...]) -> None:
        """Hold all positions of these axes, for this reason."""
        number = self.reasons.add(code, reason, at)
        for each in labels or ():
            if isinstance(each, np.ndarray):
                self.channels.fix(each, number)
