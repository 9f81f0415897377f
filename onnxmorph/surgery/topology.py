"""What becomes of a graph when whole groups go: which tensors are empty, which are constant, what is still needed.

Works from the plans' equations and the numbers of copies alone:

* A tensor is *empty* when an axis has no live position left. A node whose outputs are all empty goes.
* A node that sums over an empty axis says the same whatever comes in: its output is *constant*. So is that of a
  node which reads nothing else than constants, parameters and what is empty.
* An empty part leaves its concatenation, ``(a + b)`` in the equation.

What no output needs is not looked at: an average over nothing, for example, is an error only where it is read.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array
from onnxmorph.errors import TopologyError
from onnxmorph.notation import Term, factors
from onnxmorph.positions import count
from onnxmorph.propagate import Plan


@dataclass(frozen=True)
class Topology:
    """The fate of tensors, by name.

    ``empty`` and ``constant`` map tensors to the groups that made them so; ``broken`` those that cannot be had to
    the error's code, the reason and the groups. ``reached`` are the tensors that depended on a graph input before
    the cut. ``sizes`` are the new sizes of every plan's factors.
    """

    analysis: Analysis
    empty: Mapping[str, frozenset[str]]
    constant: Mapping[str, frozenset[str]]
    broken: Mapping[str, tuple[str, str, frozenset[str]]]
    reached: frozenset[str]
    sizes: tuple[Mapping[str, int], ...]

    def needs(self, values: Container[str] | None = None) -> Mapping[str, str]:
        """The tensors that have to be there for the graph's outputs, each with the output that it is for.

        Args:
            values: the constants whose values are found; None before they are: then what it takes to find them.
        """
        needed = {name: name for name in self.analysis.graph.outputs}
        for plan in reversed(self.analysis.plans):
            wanted = [o for o in plan.node.outputs if o in needed and (values is None or o not in values)]
            for name in wanted:
                if name in self.broken:
                    raise refusal(*self.broken[name], needed[name])
            if not wanted:
                continue
            evaluated = values is None and wanted[0] in self.constant
            shape_only = plan.rule is not None and plan.rule.reads_shape
            reads = [plan.node.inputs[i] for i in read_by(plan)]
            for name in reads if evaluated else (*plan.node.inputs, *plan.node.captured):
                if name and name not in self.empty and not (shape_only and name in self.constant):
                    needed.setdefault(name, needed[wanted[0]])
        return needed


def survey(analysis: Analysis, copies: Array) -> Topology | None:
    """Follow what is empty and what is constant through the graph; None where no group is empty.

    Args:
        analysis: of the model.
        copies: ``[channels + 1]``; a group is empty if all of its channels are 0.

    Raises:
        TopologyError: an output would hang on no input, or a node that it needs would have nothing to work on.
    """
    gone = [i for i, g in enumerate(analysis.groups) if not copies[g.start + 1 : g.start + 1 + g.width].any()]
    if not gone:
        return None
    topology = _Survey(analysis, copies, frozenset(gone)).run()
    topology.needs()
    return topology


class _Survey:
    def __init__(self, analysis: Analysis, copies: Array, gone: frozenset[int]) -> None:
        self.analysis, self.copies, self.gone = analysis, copies, gone
        self.counts: dict[int, int] = {}  # by label array: the same one stands at many axes
        self.empty: dict[str, frozenset[str]] = {}
        self.constant: dict[str, frozenset[str]] = {}
        self.broken: dict[str, tuple[str, str, frozenset[str]]] = {}
        self.reached = set(analysis.graph.inputs)
        for name, rows in analysis.rows.items():
            over = [r for r in rows if r is not None and self.count(r) == 0]
            if over:
                self.empty[name] = self.causes(over)

    def run(self) -> Topology:
        sizes = []
        for plan, rows in zip(self.analysis.plans, self.analysis.factor_rows, strict=True):
            sizes.append({n: s if (r := rows.get(n)) is None else self.count(r) for n, s in plan.sizes.items()})
            self.visit(plan, sizes[-1])
        for name in self.analysis.graph.outputs:
            causes = self.constant.get(name) or self.empty.get(name)
            if causes:
                self.broken[name] = ("topology-output", "no input would reach it any more", causes)
        reached = frozenset(self.reached)
        return Topology(self.analysis, self.empty, self.constant, self.broken, reached, tuple(sizes))

    def count(self, rows: Array) -> int:
        if id(rows) not in self.counts:
            self.counts[id(rows)] = count(rows, self.copies)
        return self.counts[id(rows)]

    def causes(self, arrays: Iterable[Array]) -> frozenset[str]:
        found = {int(g) for rows in arrays for g in np.unique(self.analysis.group_of[rows])}
        return frozenset(self.analysis.groups[g].id for g in found & self.gone)

    def lives(self, name: str) -> bool:
        return name in self.reached and name not in self.empty and name not in self.constant

    def visit(self, plan: Plan, sizes: Mapping[str, int]) -> None:
        """Settle the outputs of a node whose inputs are settled."""
        node, equation = plan.node, plan.equation
        names = [node.inputs[i] for i in read_by(plan)]
        if not node.inputs or node.captured or any(n in self.reached for n in names):
            self.reached.update(node.outputs)
        if node.inner:
            causes = [c for n in (*node.inputs, *node.outputs) if (c := self.empty.get(n))]
            still = [c for n in names if (c := self.constant.get(n))]
            if still and (node.crossing or not any(self.lives(n) for n in names)):
                causes += still
            if causes:  # branches and iterations would have to change together
                what = f"{node} stands in a body, or passes its border, and there nothing goes as a whole"
                self.spoil(self.analysis.graph.outputs, frozenset[str]().union(*causes), "topology-body", what)
            return
        if equation is None or not any(n in self.empty or n in self.constant for n in names):
            return
        if plan.rule is not None and plan.rule.reads_shape:
            return  # a shape is there without its tensor
        shown = [o for o in node.outputs if o and o not in self.empty]
        if not shown:
            return
        written = {f.name for axes in equation.outputs for axis in axes or () for f in factors(axis)}
        over = {n for n, size in sizes.items() if size == 0 and plan.sizes[n]} - written
        lost = [
            n
            for i, n in enumerate(node.inputs)
            if n in self.empty and over & {f.name for axis in axes_of_input(plan, i) for f in factors(axis)}
        ]
        live = any(self.lives(n) for n in names)
        because = frozenset[str]().union(*(self.empty.get(n) or self.constant.get(n, frozenset()) for n in names))
        if over & equation.averaged:
            self.spoil(shown, because, "topology-average", f"{node} would average over no channel at all")
        elif len(shown) < sum(map(bool, node.outputs)) and not any(w.each_output for w in plan.spec.writes):
            self.spoil(shown, because, "topology-node", f"{node} would keep only some of its outputs")
        elif lost and live:
            self.spoil(shown, because, "topology-node", f"{node} would lose its input {lost[0]!r} and keep others")
        elif not live:
            self.constant.update(dict.fromkeys(shown, because))

    def spoil(self, outputs: Iterable[str], causes: frozenset[str], code: str, what: str) -> None:
        self.broken.update(dict.fromkeys(outputs, (code, what, causes)))


def refusal(code: str, what: str, groups: frozenset[str], output: str) -> TopologyError:
    """The error for a cut that cannot be made, with the groups that would have to keep a channel."""
    ids = sorted(groups)
    shown = ", ".join(repr(g) for g in ids[:4]) + (f" and {len(ids) - 4} more" if len(ids) > 4 else "")
    whole, one = ("group", "it") if len(ids) == 1 else ("groups", "one of them")
    message = (
        f"removing all of {whole} {shown} would break output {output!r}: {what}; keep at least one channel of {one}"
    )
    return TopologyError(message, code=code, groups=tuple(ids))


def axes_of_input(plan: Plan, i: int) -> tuple[Term, ...]:
    """The axes of an input in the equation; none where it has no labels there."""
    equation = plan.equation
    return (equation.inputs[i] or ()) if equation is not None and i < len(equation.inputs) else ()


def read_by(plan: Plan) -> list[int]:
    """The inputs whose values a node works on: not the sizes and positions that are known, or that it only carries."""
    node, written = plan.node, {w.parameter for w in plan.spec.writes}

    def carried(i: int) -> bool:
        known = i < len(node.partial) and node.partial[i] is not None
        return known and (node.known[i] is not None or (i < len(node.formal) and node.formal[i] in written))

    labelled = [i for i, axes in enumerate(plan.equation.inputs) if axes is not None] if plan.equation else []
    return [i for i, name in enumerate(node.inputs) if name and (i in labelled or not carried(i))]
