"""Costs as polynomials in the group widths.

``flops`` counts every op: 2 per multiply-accumulate, 1 per element and window element otherwise
(docs/costs.md). ``macs`` counts multiply-accumulates. ``params`` counts floating-point parameters, running
statistics not. ``activations`` counts the elements that ops write. ``classic_flops`` and ``classic_params``
count convolutions and matrix products only, without biases and norms, as MorphNet did.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import prod

import numpy as np

from onnxmorph.axes import Array, row_codes
from onnxmorph.graph import Parameter
from onnxmorph.polynomial import Terms, Widths, add, multiply
from onnxmorph.propagate import Plan

NAMES = ("flops", "macs", "params", "activations", "classic_flops", "classic_params")


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


@lru_cache(maxsize=1024)
def _chooser(factors: str) -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(factors.split())})(?:~?\d+)?")


def count_costs(
    plans: Sequence[Plan],
    factor_rows: Sequence[Mapping[str, Array | None]],
    rows: Mapping[str, tuple[Array | None, ...]],
    parameters: Mapping[str, Parameter],
    roles: Mapping[str, str],
    sizes: Sizes,
) -> dict[str, list[Terms]]:
    """The terms of every cost, for every plan in order.

    A parameter is charged to the first op that reads it.
    """
    per_op: dict[str, list[Terms]] = {name: [] for name in NAMES}
    charged: set[str] = set()

    def elements(name: str, shape: Sequence[int]) -> Terms:
        axes = rows.get(name) or (None,) * len(shape)
        return _product(sizes(r, s) for r, s in zip(axes, shape, strict=True))

    for plan, of in zip(plans, factor_rows, strict=True):
        node, rule = plan.node, plan.rule
        flops: Terms = {}
        macs: Terms = {}
        if rule is not None and rule.cost is not None and node.counted:
            seen = node.in_shapes if None in node.out_shapes else node.out_shapes
            once: Terms = {(): sum(prod(s) for s in seen if s is not None)}
            if plan.equation is not None:
                chosen = [n for n in plan.sizes if _chooser(rule.cost.factors).fullmatch(n)]
                once = _product(sizes(of.get(n), plan.sizes[n]) for n in chosen)
            flops = multiply(once, {(): rule.cost.count})
            macs = once if rule.cost.macs else {}
        own = [n for n in dict.fromkeys(node.inputs) if n in parameters and n not in charged]
        charged.update(own)
        counted = {n: elements(n, parameters[n].shape) for n in own if roles.get(n) not in ("state", "constant")}
        weights = {node.inputs[i] for i in rule.weights if i < len(node.inputs)} if rule else set()
        written = [elements(n, s) for n, s in zip(node.outputs, node.out_shapes, strict=True) if n and s is not None]
        moved = node.counted and not (rule and rule.view)
        per_op["flops"].append(flops)
        per_op["macs"].append(macs)
        per_op["params"].append(add(counted.values()))
        per_op["activations"].append(add(written) if moved else {})
        per_op["classic_flops"].append(multiply(macs, {(): 2}))
        per_op["classic_params"].append(add(t for n, t in counted.items() if n in weights))
    return per_op


def _product(parts: Iterable[Terms]) -> Terms:
    result: Terms = {(): 1}
    for part in parts:
        result = multiply(result, part)
    return result
