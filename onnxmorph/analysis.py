"""From a graph to channel groups and cost polynomials: ``analyze``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxmorph.axes import Array, Channels, Mask
from onnxmorph.bounds import Bounds, Names, hold, numbers
from onnxmorph.buffers import buffers_of
from onnxmorph.cost import Sizes, Tensors, count_costs
from onnxmorph.errors import BoundsError, RuleError
from onnxmorph.graph import Graph, Node, Parameter, Shape
from onnxmorph.grouping import Grouping, group
from onnxmorph.memory import Peak, peak
from onnxmorph.model import Source, load
from onnxmorph.notation import Equation, Factor, Sum, parse
from onnxmorph.polynomial import Number, Polynomial, Resource, Terms, Widths, add
from onnxmorph.propagate import LONGEST, AxisLabels, Plan, Reason, Reasons, propagate
from onnxmorph.rules import TABLE, Rule, Spec

UNFOLLOWED = ("body", "what its body does with a tensor is not followed")
Rows = tuple[Array | None, ...]  # per axis: channel numbers [size, k], or None where the axis is fixed


@dataclass(frozen=True)
class Member:
    """One axis of one parameter."""

    tensor: str
    axis: int


@dataclass(frozen=True)
class Group:
    """Interchangeable channels. They are numbered ``start + 1 … start + width`` in label arrays."""

    id: str
    width: int
    start: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Fixed:
    """A parameter's axis that has positions which must stay, and why."""

    code: str
    tensor: str
    axis: int
    reason: str
    positions: int


@dataclass(frozen=True)
class Average:
    """An op that normalises over an axis which can be cut: afterwards it does so over the live positions."""

    node: str
    op: str
    groups: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Trace:
    """What was known before channels were grouped: where explanations come from.

    ``labels`` are per tensor and axis, in the numbers of ``channels`` and ``reasons``; ``roots[c]`` is what channel
    c of the analysis is there. ``whole`` are the tensors that the user's boundaries hold.
    """

    channels: Channels
    labels: Mapping[str, AxisLabels | None]
    reasons: Sequence[Reason]
    roots: Array
    whole: frozenset[str]


@dataclass(frozen=True)
class Analysis:
    """Channel groups and costs of a model.

    ``rows[tensor][axis]`` are the channels of every position, for every tensor of the graph;
    ``group_of[channel]`` is the number of its group (-1 for channel 0, which is always alive). ``minimum`` and
    ``multiple`` are the widths that ``bounds`` ask for, ``[groups]`` (multiple 0: none is asked for). ``further`` are
    costs beyond those that every model has.
    """

    graph: Graph
    groups: tuple[Group, ...]
    group_of: Array
    plans: tuple[Plan, ...]
    rows: Mapping[str, Rows]
    factor_rows: tuple[Mapping[str, Array | None], ...]
    roles: Mapping[str, str]
    parameters: Mapping[str, Parameter]
    fixed: tuple[Fixed, ...]
    bounds: Bounds
    minimum: Widths
    multiple: Widths
    trace: Trace
    further: Mapping[str, Resource] = field(default_factory=dict)

    @property
    def widths(self) -> Widths:
        """The full width of every group, ``[groups]``."""
        return np.array([g.width for g in self.groups], np.int64)

    @property
    def channels(self) -> int:
        """How many channels there are, channel 0 not counted."""
        return len(self.group_of) - 1

    @cached_property
    def outer(self) -> Mask:
        """Which groups are the outer factor of an axis, as heads and norm groups are, ``[groups]``."""
        result = np.zeros(len(self.groups), bool)
        for rows in (rows for name in self.parameters for rows in self.rows[name] if rows is not None):
            before = rows[:, :-1]
            result[np.unique(self.group_of[before[before > 0]])] = True
        return result

    @cached_property
    def sizes(self) -> Sizes:
        """Numbers of positions as polynomials."""
        return Sizes(self.group_of, self.widths)

    @cached_property
    def tensors(self) -> Tensors:
        """Elements and bytes of tensors as polynomials."""
        graph = self.graph
        buffers = buffers_of(self.plans, (*graph.inputs, *self.parameters), graph.outputs, graph.dtypes)
        return Tensors(self.rows, buffers, self.sizes)

    @cached_property
    def _terms(self) -> Mapping[str, Sequence[Terms]]:
        return count_costs(
            self.plans, self.factor_rows, self.tensors, self.graph.inputs, self.parameters, self.roles, self.sizes
        )

    @cached_property
    def op_costs(self) -> Mapping[str, tuple[Polynomial, ...]]:
        """Per cost that is a sum over ops one polynomial for every plan, in the order of ``plans``."""
        return {name: tuple(Polynomial.of(t) for t in terms) for name, terms in self._terms.items()}

    @cached_property
    def memory(self) -> Peak:
        """What is alive when, with the ops in the order of the file."""
        return peak(self.plans, self.graph, self.tensors)

    @cached_property
    def costs(self) -> Mapping[str, Resource]:
        """Cost name to what it is in the group widths: polynomials, the peak memory, and what is ``further``."""
        sums = {name: Polynomial.of(add(terms)) for name, terms in self._terms.items()}
        return {**sums, "peak_memory": self.memory, **self.further}

    def count(self, widths: Widths | None = None) -> dict[str, Number]:
        """Every cost at these widths, ``[groups]``; of the full network without them."""
        return {name: cost.value(self.widths if widths is None else widths) for name, cost in self.costs.items()}

    def with_costs(self, **further: Resource) -> Analysis:
        """The same analysis with further costs, which serve as prices and in budgets like any other."""
        result = replace(self, further={**self.further, **further})
        known = ("outer", "sizes", "tensors", "_terms", "op_costs", "memory", "averages", "removable")
        result.__dict__.update({name: self.__dict__[name] for name in known if name in self.__dict__})
        return result

    @cached_property
    def averages(self) -> tuple[Average, ...]:
        """Ops whose statistics a cut changes."""
        found = []
        for plan, rows in zip(self.plans, self.factor_rows, strict=True):
            if plan.equation is None or not plan.node.counted:
                continue
            over = [rows[name] for name in sorted(plan.equation.averaged)]
            ids = {
                self.groups[g].id: None for a in over if a is not None for g in np.unique(self.group_of[a]) if g >= 0
            }
            if ids:
                found.append(Average(plan.node.name or plan.node.outputs[0], plan.node.type, tuple(ids)))
        return tuple(found)

    @cached_property
    def removable(self) -> float:
        """The fraction of all floating-point parameters that lie in a slice which can be removed."""
        total, stay = 0, 0.0
        for name, parameter in self.parameters.items():
            count = int(np.prod(parameter.shape))
            free = [0 if a is None else int(a.any(1).sum()) for a in self.rows[name]]
            kept = [1 - f / s for f, s in zip(free, parameter.shape, strict=True) if s]
            total, stay = total + count, stay + count * float(np.prod(kept))
        return 1 - stay / total if total else 0.0


def analyze(
    source: Source, shapes: Mapping[str, Sequence[int]] | None = None, *, bounds: Bounds | None = None
) -> Analysis:
    """Work out which channels can only be removed together, and what each costs.

    Args:
        source: a path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.
        shapes: sizes for dynamic inputs, e.g. ``{"input": (1, 3, 224, 224)}``; without it the first axis
            counts 1, so that costs are per sample.
        bounds: what has to stay, and how wide.

    Raises:
        ModelError: the model cannot be read.
        BoundsError: a boundary names nothing in the model.

    Source: the channel algebra of docs/algebra.md; costs as in MorphNet (arXiv 1711.06798), for every op.
    """
    return analyze_graph(load(source, shapes), bounds)


def analyze_graph(graph: Graph, bounds: Bounds | None = None) -> Analysis:
    """`analyze` for a graph that is loaded already."""
    walk = _Walk(graph)
    for node in graph.nodes:
        walk.visit(node)
    return walk.finish(bounds or Bounds())


def bounded(source: Source | Analysis, bounds: Bounds | None) -> Analysis:
    """The analysis of a model, or the given one, under these boundaries; None keeps those that it has.

    Raises:
        BoundsError: the analysis has further costs, which are in its groups.
    """
    if not isinstance(source, Analysis):
        return analyze(source, bounds=bounds)
    if bounds is None or bounds == source.bounds:
        return source
    if source.further:
        names = ", ".join(source.further)
        message = f"the costs added to the analysis ({names}) are in its groups; give the boundaries to `analyze` first"
        raise BoundsError(message, code="bounds-costs")
    return analyze_graph(source.graph, bounds)


class _Walk:
    """One pass over the graph."""

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
            long = self.reasons.add("too-long", f"an axis of {name!r} has more than {LONGEST:,} positions", (name,))
            shape = parameter.shape
            self.labels[name] = tuple(long if s > LONGEST else self.channels.fresh(s)[:, None] for s in shape)
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
        number = self.reasons.add(code, reason, at)
        for each in labels or ():
            if isinstance(each, np.ndarray):
                self.channels.fix(each, number)

    def finish(self, bounds: Bounds) -> Analysis:
        """Settle what is fixed, and group the rest."""
        for name in self.graph.outputs:
            self.fix(self.labels.get(name), "graph-output", f"graph output {name!r} keeps its shape", (name,))
        for name, node in self.values:
            self.fix(self.labels.get(name), "value", f"{node} reads it as a value, not as a weight", node.tensors)
        found = self.group()
        names = self.names(found) if bounds else Names(self.graph, self.channels, {}, {})
        whole = hold(bounds, names, self.reasons)
        found = self.group() if any(bounds.holding) else found
        minimum = numbers(bounds.min_width, "min_width", names, found, 1)
        table = self.rows(found)
        return Analysis(
            graph=self.graph,
            groups=self._groups(table, found, names.groups),
            group_of=found.group_of,
            plans=tuple(self.plans),
            rows=table,
            factor_rows=tuple(dict(zip(p.labels, _rows(found, p.labels.values()), strict=True)) for p in self.plans),
            roles={**dict.fromkeys(self.graph.constants & self.fresh.keys(), "constant"), **self.roles},
            parameters=self.fresh,
            fixed=tuple(self._fixed(table)),
            bounds=bounds,
            minimum=np.minimum(minimum, found.widths),
            multiple=numbers(bounds.round_to, "round_to", names, found, 0),
            trace=Trace(self.channels, self.labels, self.reasons.all, found.roots, whole),
        )

    def group(self) -> Grouping:
        """The groups of the channels that are free now."""
        owned = [a for name in self.fresh for a in self.labels[name] or () if isinstance(a, np.ndarray)]
        held = [a for p in self.plans for a in p.labels.values() if isinstance(a, np.ndarray)]
        shown = [a for labels in self.labels.values() for a in labels or () if isinstance(a, np.ndarray)]
        irregular = self.reasons.add("irregular", "its positions are no product of channel groups")
        bare = self.reasons.add("no-parameter", "no parameter depends on it")
        return group(self.channels, owned, [*held, *shown], irregular, bare)

    def rows(self, found: Grouping) -> dict[str, Rows]:
        """The channels of every axis that may change, in their final numbers."""
        return {name: _rows(found, labels) for name, labels in self.labels.items() if labels is not None}

    def names(self, found: Grouping) -> Names:
        """What boundaries may name."""
        groups = self._groups(self.rows(found), found, {})
        labels = {
            name: np.concatenate([a.reshape(-1) for a in arrays])
            for name, axes in self.labels.items()
            if (arrays := [a for a in axes or () if isinstance(a, np.ndarray)])
        }
        ids = {g.id: found.roots[g.start + 1 : g.start + 1 + g.width] for g in groups}
        return Names(self.graph, self.channels, labels, ids)

    def _groups(self, rows: Mapping[str, Rows], found: Grouping, known: Mapping[str, Array]) -> tuple[Group, ...]:
        """Named by their first member; what is left of a known group keeps its name."""
        names = {root: name for name, roots in known.items() for root in roots.tolist()}
        members: list[list[Member]] = [[] for _ in found.widths]
        groups_in: dict[int, list[int]] = {}  # of each distinct array
        for name in self.fresh:
            for axis, array in enumerate(rows[name]):
                if array is None:
                    continue
                if id(array) not in groups_in:
                    groups_in[id(array)] = [g for g in np.unique(found.group_of[array]).tolist() if g >= 0]
                for g in groups_in[id(array)]:
                    members[g].append(Member(name, axis))
        ids: dict[str, int] = {}
        groups = []
        for width, start, of in zip(found.widths, found.starts, members, strict=True):
            base = names.get(int(found.roots[start + 1]), f"{of[0].tensor}:{of[0].axis}")
            ids[base] = ids.get(base, 0) + 1
            unique = base if ids[base] == 1 else f"{base}/{ids[base]}"
            groups.append(Group(unique, int(width), int(start), tuple(of)))
        return tuple(groups)

    def _fixed(self, rows: Mapping[str, Rows]) -> Iterable[Fixed]:
        staying: dict[int, Mask] = {}  # of each distinct array; empty where all may go
        for name, parameter in self.fresh.items():
            for axis, labels in enumerate(self.labels[name] or ()):
                left = rows[name][axis]
                if left is not None and id(left) not in staying:
                    found = np.asarray(~left.any(1))
                    staying[id(left)] = found if found.any() else found[:0]
                stay = np.ones(parameter.shape[axis], bool) if left is None else staying[id(left)]
                if len(stay) and isinstance(labels, np.ndarray):
                    why = self.channels.why(labels[stay])
                    number = int(np.bincount(why[why > 0]).argmax()) if (why > 0).any() else 0
                    reason = self.reasons.all[number]
                    yield Fixed(reason.code, name, axis, reason.text, int(stay.sum()))


def _rows(found: Grouping, labels: Iterable[object]) -> Rows:
    arrays = (found.arrays[id(a)] if isinstance(a, np.ndarray) else None for a in labels)
    return tuple(a if a is not None and a.shape[1] else None for a in arrays)
