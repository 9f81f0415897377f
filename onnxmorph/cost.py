"""Costs as polynomials in the group widths.

``flops`` counts every op: 2 per multiply-accumulate, 1 per element and window element otherwise
(docs/costs.md). ``macs`` counts multiply-accumulates. ``params`` counts parameters, running statistics
not. ``activations`` counts the elements that ops write. ``param_bytes`` and ``activation_bytes`` are the same in
bytes, as the file and the graph hold them; ``bytes_moved`` is what ops read and write. ``classic_flops`` and
``classic_params`` count convolutions and matrix products only, without biases and norms, as MorphNet did. Quantised
parameters count as what they stand for; their scales and zero points do not count.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import prod

import numpy as np

from onnxmorph.axes import Array, row_codes
from onnxmorph.buffers import Buffers, moves
from onnxmorph.graph import Parameter, Shape
from onnxmorph.notation import Factor, Product, Sum, Term, parse
from onnxmorph.polynomial import Number, Terms, Widths, add, multiply
from onnxmorph.progress import told
from onnxmorph.propagate import Plan
from onnxmorph.rules import Cost

UNCOUNTED = ("state", "constant", "quantiser")  # the roles of what the file holds and `params` does not count
NAMES = (
    "flops", "macs", "params", "param_bytes", "activations", "activation_bytes", "bytes_moved", "classic_flops",
    "classic_params",
)  # fmt: skip


class Sizes:
    """The number of live positions of a label array, as terms of a polynomial; computed once per array."""

    def __init__(self, group_of: Array, widths: Widths) -> None:
        self._group_of, self._widths = group_of, widths
        self._found: dict[int, tuple[Array, Terms]] = {}

    def __call__(self, rows: Array | None, size: int) -> Terms:
        """Terms for `rows`; the constant `size` where the axis is fixed."""
        if rows is None:
            return {(): size}
        if id(rows) not in self._found:
            groups = np.sort(self._group_of[rows], 1)
            _, first, counts = np.unique(row_codes(groups), return_index=True, return_counts=True)
            terms: dict[tuple[int, ...], int] = {}
            for kind, count in zip(groups[first].tolist(), counts.tolist(), strict=True):
                monomial = tuple(g for g in kind if g >= 0)
                terms[monomial] = terms.get(monomial, 0) + count
            whole = {m: divmod(c, int(np.prod([self._widths[g] for g in m], dtype=np.int64))) for m, c in terms.items()}
            assert all(rest == 0 for _, rest in whole.values()), "a group is not spread evenly over an axis"
            self._found[id(rows)] = (rows, {m: c for m, (c, _) in whole.items()})  # keeps the array alive
        return self._found[id(rows)][1]


@lru_cache(maxsize=4096)
def _named(name: str, among: tuple[str, ...]) -> tuple[str, ...]:
    """The factors that a name stands for: itself, and the numbered ones of ``name...``."""
    return tuple(n for n in among if re.fullmatch(rf"{name}(?:~?\d+)?", n))


def _count(term: Term, plan: Plan, of: Mapping[str, Array | None], sizes: Sizes) -> Terms | None:
    """The size of a term of a cost; None where the node has no factor of it."""
    if isinstance(term, Factor):
        names = _named(term.name, tuple(plan.sizes))
        return _product(sizes(of.get(n), plan.sizes[n]) for n in names) if names else None
    parts = [p for each in term.terms if (p := _count(each, plan, of, sizes)) is not None]
    return None if not parts else add(parts) if isinstance(term, Sum) else _product(parts)


def _operations(
    cost: Cost | None, plan: Plan, of: Mapping[str, Array | None], sizes: Sizes
) -> Iterator[tuple[Cost, Terms]]:
    """Every part of an op's cost, and the product of its factors."""
    seen = plan.node.in_shapes if None in plan.node.out_shapes else plan.node.out_shapes
    written: Terms = {(): sum(prod(s) for s in seen if s is not None)}
    while cost is not None:
        whole = Product(parse(f"{cost.factors} -> _").inputs[0] or ())
        found = written if plan.equation is None else _count(whole, plan, of, sizes)
        yield cost, multiply({(): 1} if found is None else found, {(): plan.node.times})
        cost = cost.plus


class Tensors:
    """Elements and bytes of every tensor of a graph as polynomials, computed once per tensor."""

    def __init__(self, rows: Mapping[str, tuple[Array | None, ...]], buffers: Buffers, sizes: Sizes) -> None:
        self.buffers = buffers
        self._rows, self._sizes = rows, sizes
        self._found: dict[str, Terms] = {}

    def elements(self, name: str, shape: Shape) -> Terms:
        """How many numbers a tensor of this shape holds."""
        if name not in self._found:
            axes = self._rows.get(name) or (None,) * len(shape)
            self._found[name] = _product(self._sizes(r, s) for r, s in zip(axes, shape, strict=True))
        return self._found[name]

    def bytes_each(self, name: str) -> Number:
        """Bytes of one number of a tensor, where it is held; half a byte for numbers of four bits."""
        return self.buffers.bytes_each(name)

    def bytes_of(self, name: str, shape: Shape) -> Terms:
        """How many bytes a tensor of this shape takes where it is held."""
        return multiply(self.elements(name, shape), {(): self.bytes_each(name)})


def count_costs(
    plans: Sequence[Plan],
    factor_rows: Sequence[Mapping[str, Array | None]],
    tensors: Tensors,
    inputs: Iterable[str],
    parameters: Mapping[str, Parameter],
    roles: Mapping[str, str],
    sizes: Sizes,
) -> dict[str, list[Terms]]:
    """The terms of every cost, for every plan in order.

    A parameter is charged to the first op that reads it.
    """
    per_op: dict[str, list[Terms]] = {name: [] for name in NAMES}
    charged: set[str] = set()
    classic: set[str] = set()
    data = {*inputs, *(n for n, p in parameters.items() if p.shape and roles.get(n) != "constant")}
    plain: dict[str, str] = {}  # a quantised parameter by the name of its floating-point value

    for plan, of in told("Counting costs", list(zip(plans, factor_rows, strict=True))):
        node, rule = plan.node, plan.rule
        data.update(node.outputs if node.counted else ())
        parts = list(_operations(plan.cost, plan, of, sizes)) if node.counted else []
        macs = add(once for cost, once in parts if cost.macs)
        own = [n for n in dict.fromkeys((*node.inputs, *node.captured)) if n in parameters and n not in charged]
        charged.update(own)
        counted = [n for n in own if roles.get(n) not in UNCOUNTED]
        if rule is not None and rule.view and rule.quantised:
            plain[node.outputs[0]] = plain.get(node.inputs[0], node.inputs[0])
        read = [node.inputs[i] for i in rule.weights if i < len(node.inputs)] if rule is not None else []
        weights = {plain.get(n, n) for n in read}
        written = [(n, s) for n, s in zip(node.outputs, node.out_shapes, strict=True) if n and s is not None]
        written = written if moves(plan) else []
        often: Terms = {(): node.times}
        wrote = multiply(add(tensors.bytes_of(n, s) for n, s in written), often)
        per_op["flops"].append(add(multiply(once, {(): cost.count}) for cost, once in parts))
        per_op["macs"].append(macs)
        per_op["params"].append(add(tensors.elements(n, parameters[n].shape) for n in counted))
        per_op["param_bytes"].append(add(tensors.bytes_of(n, parameters[n].shape) for n in counted))
        per_op["activations"].append(multiply(add(tensors.elements(n, s) for n, s in written), often))
        per_op["activation_bytes"].append(wrote)
        moved = add([wrote, multiply(add(_reads(plan, tensors, data)), often)]) if moves(plan) else {}
        per_op["bytes_moved"].append(moved)
        per_op["classic_flops"].append(multiply(macs, {(): 2}))
        heavy = [n for n in weights - classic if n in parameters and roles.get(n) not in UNCOUNTED]
        classic.update(heavy)
        per_op["classic_params"].append(add(tensors.elements(n, parameters[n].shape) for n in heavy))
    return per_op


def _reads(plan: Plan, tensors: Tensors, data: Container[str]) -> Iterator[Terms]:
    """The bytes of every tensor that an op reads, each once: of a quantised parameter as the file holds it.

    Single numbers that the file holds, sizes, axes, and what is computed of them do not count.
    """
    node, seen = plan.node, set[str]()
    for i, (name, shape) in enumerate(zip(node.inputs, node.in_shapes, strict=True)):
        if name not in data or name in seen or shape is None or (plan.rule is not None and i in plan.rule.unread):
            continue
        seen.add(name)
        if i == 0 and plan.rule is not None and plan.rule.picks and node.out_shapes[0] is not None:
            yield multiply(tensors.elements(node.outputs[0], node.out_shapes[0]), {(): tensors.bytes_each(name)})
        else:
            yield tensors.bytes_of(name, shape)


def _product(parts: Iterable[Terms]) -> Terms:
    result: Terms = {(): 1}
    for part in parts:
        result = multiply(result, part)
    return result
