"""The numbers of a report as one JSON document: what the page and the figures draw.

Tables are lists of rows. Names are as the files have them: who draws them escapes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import isfinite

import numpy as np

from onnxmorph import __version__
from onnxmorph.analysis import Analysis
from onnxmorph.errors import OnnxMorphError
from onnxmorph.polynomial import Widths, sweep
from onnxmorph.report.drawing import Document
from onnxmorph.report.page.layers import Layer, layers
from onnxmorph.report.page.removal import WHY, Removed, removed
from onnxmorph.report.page.subject import Series, Subject

VERSION = 1
SHARED = ("flops", "params", "activation_bytes", "bytes_moved")  # what is a sum over ops, and shown for every one
PRICED = (*SHARED, "peak_memory", "latency")
OMEGAS = np.concatenate([np.arange(0.1, 1.0, 0.05), [1.0]])
BEYOND = (1.1, 1.25, 1.5, 2.0)  # where something costs more than the full network
NUMBERS = 60_000  # widths in a log: of many groups there are fewer steps


def document(subjects: Sequence[Subject], cost: str = "flops") -> Document:
    """Of several subjects; `cost` is what is shown first.

    Raises:
        OnnxMorphError: no subject has that cost.
    """
    found = [_subject(each) for each in subjects]
    known = dict.fromkeys(name for each in found for name in each["priced"] or each["costs"].get("before", ()))
    if known and cost not in known:
        message = f"there is no cost {cost!r} in what is reported; there are {', '.join(known)}"
        raise OnnxMorphError(message, code="report-cost")
    return {"version": VERSION, "program": __version__, "cost": cost, "why": WHY, "subjects": found}


def _subject(of: Subject) -> Document:
    found: Document = {
        "name": of.name,
        "kind": of.kind,
        "facts": [list(each) for each in of.facts],
        "costs": of.costs(),
        "points": [
            {
                "name": each.name,
                "costs": dict(each.costs),
                "metric": each.metric,
                "multiplied": each.multiplied,
                "best": each.best,
            }
            for each in of.points
        ],
        "series": None if of.series is None else _series(of.series),
        "changed": of.after is not None,
    }
    if of.analysis is None:
        return found | {"priced": [], "groups": [_bare_group(of, id, width) for id, width in of.before.items()]}
    return found | _network(of, of.analysis)


def _bare_group(of: Subject, id: str, width: int) -> Document:
    return {"id": id, "before": width, "after": (of.after or {}).get(id, width)}


# -- the network ---------------------------------------------------------------------------------


def _network(of: Subject, analysis: Analysis) -> Document:
    after = of.widths
    gone = [] if after is None else removed(analysis, after)
    now = analysis.widths if after is None else after
    lost = {each.number for each in gone}
    priced = [name for name in PRICED if name in analysis.costs]
    return {
        "model": analysis.graph.source,
        "ops": len(analysis.plans),
        "removable": analysis.removable,
        "priced": priced,
        "shared": list(SHARED),
        "groups": _groups(analysis, now, priced),
        "layers": [_layer(analysis, each, now, each.number in lost) for each in layers(analysis)],
        "types": _types(analysis, now, lost),
        **_fixed(analysis),
        "removed": [_removed(analysis, each) for each in gone],
        "curve": _curve(of, analysis),
        "notes": list(analysis.graph.notes),
    }


def _groups(analysis: Analysis, now: Widths, priced: Sequence[str]) -> list[Document]:
    """With the price of one channel before and after, per cost in `priced`."""
    prices = [[analysis.costs[name].gradient(at).tolist() for name in priced] for at in (analysis.widths, now)]
    return [
        {
            "id": g.id,
            "before": g.width,
            "after": width,
            "price": [[of_all[i] for of_all in each] for each in prices],
            "axes": len(g.members),
        }
        for i, (g, width) in enumerate(zip(analysis.groups, now.tolist(), strict=True))
    ]


def _layer(analysis: Analysis, of: Layer, now: Widths, gone: bool) -> Document:
    read, written = of.widths(analysis.widths)
    read_now, written_now = (0, 0) if gone else of.widths(now)
    return {
        "name": of.name,
        "weight": of.weight,
        "op": of.plan.node.type,
        "groups": list(of.groups),
        "in": [read, read_now],
        "out": [written, written_now],
        "costs": [_costs(analysis, of.number, at, lost) for at, lost in ((analysis.widths, False), (now, gone))],
        "stays": of.stays,
        "gone": gone,
    }


def _costs(analysis: Analysis, number: int, at: Widths, lost: bool) -> list[float]:
    return [0 if lost else analysis.op_costs[name][number].value(at) for name in SHARED]


def _types(analysis: Analysis, now: Widths, lost: set[int]) -> list[Document]:
    """Per type of op: how many, and what they cost, before and after."""
    found = []
    by_type = sorted(range(len(analysis.plans)), key=lambda number: analysis.plans[number].node.type)
    for op, same in groupby(by_type, lambda number: analysis.plans[number].node.type):
        numbers = list(same)
        before = [_costs(analysis, number, analysis.widths, False) for number in numbers]
        after = [_costs(analysis, number, now, number in lost) for number in numbers]
        costs = [[sum(column) for column in zip(*rows, strict=True)] for rows in (before, after)]
        found.append({"op": op, "count": [len(numbers), len(set(numbers) - lost)], "costs": costs})
    return found


def _fixed(analysis: Analysis) -> Document:
    """Fixed axes as rows of code, tensor, axis, positions and the number of the reason; and the reasons."""
    reasons = {text: n for n, text in enumerate(dict.fromkeys(each.reason for each in analysis.fixed))}
    rows = [[each.code, each.tensor, each.axis, each.positions, reasons[each.reason]] for each in analysis.fixed]
    return {"fixed": rows, "reasons": list(reasons)}


def _removed(analysis: Analysis, of: Removed) -> Document:
    node = analysis.plans[of.number].node
    return {"name": node.name or node.outputs[0], "op": node.type, "why": of.why, "groups": list(of.groups)}


# -- curves --------------------------------------------------------------------------------------


def _curve(of: Subject, analysis: Analysis) -> Document:
    """What the network costs at every width multiplier: all widths times ω, rounded down, at least 1."""
    full = analysis.count()
    names = [name for name in full if not name.startswith("classic_")]
    above = any(costs.get(name, 0) > full[name] for costs in _met(of) for name in names)
    omegas = [*OMEGAS.tolist(), *(BEYOND if above else ())]
    many = np.stack([np.maximum(np.floor(analysis.widths * omega + 1e-9).astype(np.int64), 1) for omega in omegas])
    costs = {name: sweep(analysis.costs[name], many).tolist() for name in names}
    return {"omega": [round(omega, 3) for omega in omegas], "costs": costs}


def _met(of: Subject) -> Iterable[Mapping[str, float]]:
    return (*(each.costs for each in of.points), of.costs().get("after", {}))


def _series(of: Series) -> Document:
    """Thinned out, and widths as the steps at which they change: pairs of the step's number and the width."""
    most = min(max(NUMBERS // max(len(of.widths), 1), 40), 240)
    shown = np.unique(np.linspace(0, len(of.steps) - 1, min(most, len(of.steps))).round().astype(int)).tolist()

    def picked(values: Sequence[float]) -> list[float | None]:
        return [values[i] if isfinite(values[i]) else None for i in shown]  # infinity is no JSON

    def changes(widths: Sequence[int | None]) -> list[tuple[int, int | None]]:
        there = [widths[i] for i in shown]
        return [(i, width) for i, width in enumerate(there) if i == 0 or width != there[i - 1]]

    return {
        "unit": of.unit,
        "steps": [of.steps[i] for i in shown],
        "strength": None if of.strength is None else picked(of.strength),
        "costs": {name: picked(each) for name, each in of.costs.items()},
        "widths": [{"id": id, "changes": changes(widths)} for id, widths in of.widths.items()],
        "marks": [list(each) for each in of.marks],
    }
