"""What an analysis found as records: rows with the same keys, whose values are texts and numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from onnxmorph.axes import Array
from onnxmorph.display import Record
from onnxmorph.graph import Parameter
from onnxmorph.groups import Fixed, Group
from onnxmorph.polynomial import Polynomial, Resource, Widths
from onnxmorph.propagate import Plan

Kind = Literal["groups", "ops", "layers", "parameters", "fixed"]
KINDS: tuple[str, ...] = get_args(Kind)
Costs = Mapping[str, Sequence[Polynomial]]  # of every op


def of_groups(groups: Sequence[Group], costs: Mapping[str, Resource], widths: Widths) -> list[Record]:
    """Per group: how wide it is, in how many axes it stands, and what one of its channels costs."""
    prices = {name: cost.gradient(widths).tolist() for name, cost in costs.items()}
    return [
        {"group": g.id, "width": g.width, "axes": len(g.members), **{name: of[i] for name, of in prices.items()}}
        for i, g in enumerate(groups)
    ]


def of_ops(plans: Sequence[Plan], costs: Costs, alive: Sequence[float], widths: Widths) -> list[Record]:
    """Per op: what it costs, and the bytes that are alive while it runs."""
    values = {name: [cost.value(widths) for cost in of] for name, of in costs.items()}
    return [
        {"node": _name(plan), "op": plan.node.type, **{name: of[i] for name, of in values.items()}, "alive": alive[i]}
        for i, plan in enumerate(plans)
    ]


def of_layers(
    plans: Sequence[Plan],
    costs: Costs,
    widths: Widths,
    parameters: Mapping[str, Parameter],
    rows: Mapping[str, tuple[Array | None, ...]],
    ids: Callable[[Array], Iterable[str]],
) -> list[Record]:
    """Per op that reads parameters: its largest one, the groups on it, what can be cut of its output, what it costs.

    `ids` gives the groups on an axis.
    """
    found = []
    for i, plan in enumerate(plans):
        own = [parameters[name] for name in plan.node.inputs if name in parameters]
        if not own:
            continue
        largest = max(own, key=lambda parameter: int(np.prod(parameter.shape)))
        groups = dict.fromkeys(id for a in rows.get(largest.name, ()) if a is not None for id in ids(a))
        output = plan.node.outputs[0]
        channels = [len(a) for a in rows.get(output, ()) if a is not None]
        found.append(
            {
                "layer": _name(plan),
                "op": plan.node.type,
                "parameter": largest.name,
                "shape": "×".join(map(str, largest.shape)),
                "groups": ", ".join(groups),
                "channels": channels[0] if channels else None,
                **{name: of[i].value(widths) for name, of in costs.items()},
            }
        )
    return found


def of_parameters(parameters: Mapping[str, Parameter], groups: Sequence[Group], fixed: Sequence[Fixed]) -> list[Record]:
    """Per axis of a parameter: its size, the groups on it, and the code of what stays of it."""
    standing: dict[tuple[str, int], list[str]] = {}
    for group in groups:
        for member in group.members:
            standing.setdefault((member.tensor, member.axis), []).append(group.id)
    codes = {(f.tensor, f.axis): f.code for f in fixed}
    return [
        {
            "tensor": name,
            "axis": axis,
            "size": size,
            "dtype": parameter.dtype,
            "groups": ", ".join(standing.get((name, axis), ())),
            "stays": codes.get((name, axis)),
        }
        for name, parameter in parameters.items()
        for axis, size in enumerate(parameter.shape)
    ]


def of_fixed(fixed: Sequence[Fixed]) -> list[Record]:
    """Per axis that stays: how many positions of it, and why."""
    return [
        {"tensor": f.tensor, "axis": f.axis, "positions": f.positions, "code": f.code, "reason": f.reason}
        for f in fixed
    ]


def _name(plan: Plan) -> str:
    return plan.node.name or plan.node.outputs[0]
