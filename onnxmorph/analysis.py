"""From a graph to channel groups and cost polynomials: ``analyze``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxmorph.axes import Array, Mask
from onnxmorph.bounds import Bounds, Names, hold, numbers
from onnxmorph.buffers import buffers_of
from onnxmorph.cost import Sizes, Tensors, count_costs
from onnxmorph.display import Record, Sheet, Shown, cell, sheet
from onnxmorph.errors import BoundsError
from onnxmorph.graph import Graph, Parameter
from onnxmorph.grouping import Grouping, group
from onnxmorph.groups import Average as Average
from onnxmorph.groups import Fixed as Fixed
from onnxmorph.groups import Group as Group
from onnxmorph.groups import Member as Member
from onnxmorph.groups import Trace as Trace
from onnxmorph.memory import Peak, peak
from onnxmorph.model import Source, load
from onnxmorph.polynomial import Number, Polynomial, Resource, Terms, Widths, add
from onnxmorph.progress import told
from onnxmorph.propagate import Plan
from onnxmorph.records import KINDS, Kind, of_fixed, of_groups, of_layers, of_ops, of_parameters
from onnxmorph.walk import Walk
from onnxmorph.words import cost_name, plural

Rows = tuple[Array | None, ...]  # per axis: channel numbers [size, k], or None where the axis is fixed


@dataclass(frozen=True, repr=False)
class Analysis(Shown):
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
    def _heading(self) -> str:
        ops, groups = plural(len(self.plans), "op"), plural(len(self.groups), "channel group")
        return f"{self.graph.source}: {ops}, {groups} of {plural(self.channels, 'channel')}"

    @property
    def _sheets(self) -> list[Sheet]:
        costs = [{"cost": cost_name(name), "value": cell(name, value)} for name, value in self.count().items()]
        groups = sorted(self.to_records(), key=lambda row: -row["flops"] * row["width"])
        stays = [{"code": code, "axes": n} for code, n in Counter(f.code for f in self.fixed).most_common()]
        priced = "Channel groups, dearest first, and the price of one channel"
        found = [
            sheet("Costs", costs, ("cost", "value")),
            sheet(priced, groups, ("group", "width", "flops", "params")),
            sheet("What stays", stays, ("code", "axes")),
        ]
        return [each for each in found if each.rows]

    def to_records(self, of: Kind = "groups") -> list[Record]:
        """Rows with the same keys, whose values are texts and numbers: ``pandas.DataFrame`` takes them as they are.

        Args:
            of: ``groups`` (width, axes, the price of one channel by cost), ``ops`` (costs, bytes alive), ``layers``
                (ops with parameters: shape, groups, channels, costs), ``parameters`` (every axis, its group or why it
                stays) or ``fixed`` (axes that stay, and why).

        Raises:
            ValueError: `of` is none of these.
        """
        if of == "groups":
            return of_groups(self.groups, self.costs, self.widths)
        if of == "ops":
            return of_ops(self.plans, self.op_costs, self.memory.alive(self.widths).tolist(), self.widths)
        if of == "layers":
            return of_layers(self.plans, self.op_costs, self.widths, self.parameters, self.rows, self._ids)
        if of == "parameters":
            return of_parameters(self.parameters, self.groups, self.fixed)
        if of == "fixed":
            return of_fixed(self.fixed)
        raise ValueError(f"there are no records of {of!r}; there are {', '.join(KINDS)}")

    def _ids(self, rows: Array) -> tuple[str, ...]:
        """The groups on an axis."""
        return tuple(self.groups[g].id for g in np.unique(self.group_of[rows]) if g >= 0)

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
        for plan, of in zip(self.plans, self.factor_rows, strict=True):
            if plan.equation is None or not plan.node.counted:
                continue
            over = [of[name] for name in sorted(plan.equation.averaged)]
            ids = {id: None for rows in over if rows is not None for id in self._ids(rows)}
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
    walk = Walk(graph)
    for node in told("Following channels", graph.nodes):
        walk.visit(node)
    return _settle(walk, bounds or Bounds())


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


def _settle(walk: Walk, bounds: Bounds) -> Analysis:
    """Settle what is fixed, and group the rest."""
    for name in walk.graph.outputs:
        walk.fix(walk.labels.get(name), "graph-output", f"graph output {name!r} keeps its shape", (name,))
    for name, node in walk.values:
        walk.fix(walk.labels.get(name), "value", f"{node} reads it as a value, not as a weight", node.tensors)
    found = _group(walk)
    names = _names(walk, found) if bounds else Names(walk.graph, walk.channels, {}, {})
    whole = hold(bounds, names, walk.reasons)
    found = _group(walk) if any(bounds.holding) else found
    minimum = numbers(bounds.min_width, "min_width", names, found, 1)
    table = _table(walk, found)
    return Analysis(
        graph=walk.graph,
        groups=_groups(walk, table, found, names.groups),
        group_of=found.group_of,
        plans=tuple(walk.plans),
        rows=table,
        factor_rows=tuple(dict(zip(p.labels, _rows(found, p.labels.values()), strict=True)) for p in walk.plans),
        roles={**dict.fromkeys(walk.graph.constants & walk.fresh.keys(), "constant"), **walk.roles},
        parameters=walk.fresh,
        fixed=tuple(_fixed(walk, table)),
        bounds=bounds,
        minimum=np.minimum(minimum, found.widths),
        multiple=numbers(bounds.round_to, "round_to", names, found, 0),
        trace=Trace(walk.channels, walk.labels, walk.reasons.all, found.roots, whole),
    )


def _group(walk: Walk) -> Grouping:
    """The groups of the channels that are free now."""
    owned = [a for name in walk.fresh for a in walk.labels[name] or () if isinstance(a, np.ndarray)]
    held = [a for p in walk.plans for a in p.labels.values() if isinstance(a, np.ndarray)]
    shown = [a for labels in walk.labels.values() for a in labels or () if isinstance(a, np.ndarray)]
    irregular = walk.reasons.add("irregular", "its positions are no product of channel groups")
    bare = walk.reasons.add("no-parameter", "no parameter depends on it")
    return group(walk.channels, owned, [*held, *shown], irregular, bare)


def _table(walk: Walk, found: Grouping) -> dict[str, Rows]:
    """The channels of every axis that may change, in their final numbers."""
    return {name: _rows(found, labels) for name, labels in walk.labels.items() if labels is not None}


def _names(walk: Walk, found: Grouping) -> Names:
    """What boundaries may name."""
    groups = _groups(walk, _table(walk, found), found, {})
    labels = {
        name: np.concatenate([a.reshape(-1) for a in arrays])
        for name, axes in walk.labels.items()
        if (arrays := [a for a in axes or () if isinstance(a, np.ndarray)])
    }
    ids = {g.id: found.roots[g.start + 1 : g.start + 1 + g.width] for g in groups}
    return Names(walk.graph, walk.channels, labels, ids)


def _groups(walk: Walk, rows: Mapping[str, Rows], found: Grouping, known: Mapping[str, Array]) -> tuple[Group, ...]:
    """Named by their first member; what is left of a known group keeps its name."""
    names = {root: name for name, roots in known.items() for root in roots.tolist()}
    members: list[list[Member]] = [[] for _ in found.widths]
    groups_in: dict[int, list[int]] = {}  # of each distinct array
    for name in walk.fresh:
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


def _fixed(walk: Walk, rows: Mapping[str, Rows]) -> Iterable[Fixed]:
    staying: dict[int, Mask] = {}  # of each distinct array; empty where all may go
    for name, parameter in walk.fresh.items():
        for axis, labels in enumerate(walk.labels[name] or ()):
            left = rows[name][axis]
            if left is not None and id(left) not in staying:
                found = np.asarray(~left.any(1))
                staying[id(left)] = found if found.any() else found[:0]
            stay = np.ones(parameter.shape[axis], bool) if left is None else staying[id(left)]
            if len(stay) and isinstance(labels, np.ndarray):
                why = walk.channels.why(labels[stay])
                number = int(np.bincount(why[why > 0]).argmax()) if (why > 0).any() else 0
                reason = walk.reasons.all[number]
                yield Fixed(reason.code, name, axis, reason.text, int(stay.sum()))


def _rows(found: Grouping, labels: Iterable[object]) -> Rows:
    arrays = (found.arrays[id(a)] if isinstance(a, np.ndarray) else None for a in labels)
    return tuple(a if a is not None and a.shape[1] else None for a in arrays)
