"""An analysis: what a model costs, which channels can go, what one of each costs, and what stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from onnxmorph.analysis import Analysis, Group
from onnxmorph.report.documents import document as versioned
from onnxmorph.report.drawing import (
    Document,
    add_row,
    amount,
    cost_name,
    paragraph,
    plain,
    plural,
    quantity,
    share_bar,
    shorten,
    table_of,
)

GROUPS = 20  # rows of the table of groups
ALIVE = 4  # tensors shown of those alive at the peak


def document(of: Analysis) -> Document:
    """What ``analyze --json`` prints."""
    widths = of.widths
    prices = {name: cost.gradient(widths).tolist() for name, cost in of.costs.items()}
    fields = {
        "model": of.graph.source,
        "fingerprint": of.graph.fingerprint,
        "costs": of.count(),
        "groups": [
            {
                "id": g.id,
                "width": g.width,
                "price": {name: price[i] for name, price in prices.items()},
                "members": [{"tensor": m.tensor, "axis": m.axis} for m in g.members],
            }
            for i, g in enumerate(of.groups)
        ],
        "fixed": [{"code": f.code, "tensor": f.tensor, "axis": f.axis, "reason": f.reason} for f in of.fixed],
        "removable": of.removable,
        "ops": of.to_records("ops"),
        "peak": _peak(of),
        "averages": [{"node": a.node, "op": a.op, "groups": list(a.groups)} for a in of.averages],
        "uncovered": [dict(zip(("op", "node", "code", "reason"), u, strict=True)) for u in uncovered(of)],
        "notes": list(of.graph.notes),
    }
    return versioned("analyze", fields)


def analysis(of: Analysis, verbose: bool = False) -> list[RenderableType]:
    """What ``analyze`` shows: costs in all, by op and by group, the peak of memory, what is fixed and why."""
    heading = f"{of.graph.source}: {plural(len(of.plans), 'op')}, {plural(len(of.groups), 'channel group')}"
    shown: list[RenderableType] = [plain(heading), "", totals(of), "", op_table(of), *_classic(of), ""]
    shown += [peak_table(of, verbose), *_more_alive(of, verbose), ""]
    if of.groups:
        shown += [group_table(of, verbose), *_more_groups(of, verbose), ""]
    if of.fixed:
        shown += stays(of, verbose)
    return [*shown, *(paragraph(plain(text)) for text in _remarks(of, verbose))]


def _peak(of: Analysis) -> Document:
    """The op at which most is alive, and what that is, largest first."""
    alive = [{"tensor": name, "bytes": size} for name, size in of.memory.live_set(of.widths)]
    step = of.memory.step(of.widths)
    if not of.plans:
        return {"node": None, "op": None, "alive": alive}
    node = of.plans[step].node
    return {"node": node.name or node.outputs[0], "op": node.type, "alive": alive}


def op_table(of: Analysis) -> Table:
    """Costs by type of op, dearest first; types that cost nothing share the last row."""
    names = ("flops", "params", "activation_bytes", "bytes_moved")
    widths = of.widths
    per_op = np.array([[p.value(widths) for p in of.op_costs[n]] for n in names], dtype=object)
    by_type = sorted(zip((p.node.type for p in of.plans), per_op.T, strict=True), key=itemgetter(0))
    rows = [(kind, [[1, *costs] for _, costs in same]) for kind, same in groupby(by_type, itemgetter(0))]
    kinds = [(kind, [sum(column) for column in zip(*each, strict=True)]) for kind, each in rows]
    whole = [len(of.plans), *(of.costs[n].value(of.widths) for n in names)]
    headings = ("op", "count", "FLOPs", "params", "written", "moved", "of FLOPs")
    table = table_of("Costs by op", *headings, right=5)
    free = 0
    for kind, row in sorted(kinds, key=lambda item: [-n for n in item[1][1:]]):
        if any(row[1:]):
            bar = share_bar(row[1] / whole[1] if whole[1] else 0)
            add_row(table, shorten(kind, 22), str(row[0]), *map(quantity, names, row[1:]), bar)
        else:
            free += row[0]
    if free:
        add_row(table, "without cost", str(free), *[""] * 5, style="dim")
    table.add_section()
    add_row(table, "total", str(whole[0]), *map(quantity, names, whole[1:]), "", style="bold")
    return table


def totals(of: Analysis) -> Table:
    """All costs but those of `classic`, three in a row."""
    found = of.count()
    first = ("flops", "params", "activations", "macs", "param_bytes", "activation_bytes", "peak_memory", "bytes_moved")
    rest = [n for n in found if n not in first and n not in ("classic_flops", "classic_params")]
    cells = [cell for n in (*first, *rest) for cell in (cost_name(n), quantity(n, found[n]))]
    table = table_of("Costs", *[""] * 6)
    table.show_header = False
    for column in table.columns[1::2]:
        column.justify, column.style = "right", "bold"
    for start in range(0, len(cells), 6):
        add_row(table, *cells[start : start + 6])
    return table


def peak_table(of: Analysis, verbose: bool = False) -> Table:
    """The tensors that are alive where most is, largest first; the largest of them, if not all are wanted."""
    at, whole = _peak(of), of.memory.value(of.widths)
    table = table_of("Alive at the peak of memory", "tensor", "bytes", "of the peak", right=1)
    for each in at["alive"][: None if verbose else ALIVE]:
        bar = share_bar(each["bytes"] / whole if whole else 0)
        add_row(table, shorten(each["tensor"], 40), quantity("peak_memory", each["bytes"]), bar)
    return table


def _more_alive(of: Analysis, verbose: bool) -> Iterable[RenderableType]:
    at = _peak(of)
    if at["op"]:
        yield paragraph(plain(f"The peak is {at['op']} {shorten(at['node'], 40)!r}."))
    rest = [] if verbose else at["alive"][ALIVE:]
    if rest:
        size = quantity("peak_memory", sum(each["bytes"] for each in rest))
        yield paragraph(f"{plural(len(rest), 'more tensor')} of {size} in all: --verbose.")


def _classic(of: Analysis) -> list[RenderableType]:
    flops, params = (amount(of.costs[n].value(of.widths)) for n in ("classic_flops", "classic_params"))
    text = f"Convolutions and matrix products only, without biases and norms: {flops} FLOPs, {params} params."
    return [paragraph(text)]


def _by_cost(of: Analysis, names: Sequence[str]) -> list[tuple[float, list[float], Group]]:
    """Per group: the FLOPs that would go with all of it, the prices of one channel; dearest first."""
    prices = np.array([of.costs[n].gradient(of.widths) for n in names], dtype=object).T.tolist()
    rows = [(price[0] * g.width, price, g) for price, g in zip(prices, of.groups, strict=True)]
    return sorted(rows, key=lambda row: (-row[0], -row[1][1]))


def group_table(of: Analysis, verbose: bool = False) -> Table:
    """The groups that cost most, or all: width, the price of one channel, and in how many axes it stands."""
    total = of.costs["flops"].value(of.widths)
    names = ("flops", "params", "latency" if "latency" in of.costs else "peak_memory")
    headings = ("group", "width", *map(cost_name, names), "in", "of FLOPs")
    table = table_of("Channel groups, dearest first, and the price of one channel", *headings, right=len(names) + 2)
    for whole, prices, g in _by_cost(of, names)[: None if verbose else GROUPS]:
        axes = plural(len(g.members), "axis")
        bar = share_bar(whole / total if total else 0)
        add_row(table, shorten(g.id, 28), f"{g.width:,}", *map(quantity, names, prices), axes, bar)
    return table


def _more_groups(of: Analysis, verbose: bool) -> Iterable[RenderableType]:
    yield paragraph("of FLOPs: what would go if all channels of the group went.")
    if len(of.groups) > GROUPS and not verbose:
        yield paragraph(f"{plural(len(of.groups) - GROUPS, 'more group')}: --verbose.")


def fixed_table(of: Analysis) -> Table:
    """Why axes of parameters stay: counts per code, with the commonest reason as the example."""
    table = table_of("What stays, and why", "code", "axes", "for example", right=1, wrap=True)
    for code, count in Counter(f.code for f in of.fixed).most_common():
        first = next(f for f in of.fixed if f.code == code)
        add_row(table, code, str(count), f"{shorten(first.tensor, 30)}:{first.axis}, {shorten(first.reason, 120)}")
    return table


def stays(of: Analysis, verbose: bool) -> list[RenderableType]:
    """Why axes of parameters stay: by reason, and one by one."""
    shown: list[RenderableType] = [fixed_table(of), ""]
    return [*shown, axis_table(of), ""] if verbose else shown


def axis_table(of: Analysis) -> Table:
    """Every axis of a parameter that stays, and why."""
    table = table_of("Every axis that stays", "axis", "positions", "why", right=1, wrap=True)
    for f in of.fixed:
        add_row(table, shorten(f"{f.tensor}:{f.axis}", 30), f"{f.positions:,}", f"{plain(f.reason)}  [{f.code}]")
    return table


def uncovered(of: Analysis) -> list[tuple[str, str, str, str]]:
    """Ops that no rule covers, or whose rule does not cover this form: type, name, code and reason.

    An op whose axes stay whatever its form is covered: its reason stands with the axes that it holds.
    """
    return [
        (plan.node.type, plan.node.name or plan.node.outputs[0], *plan.spec.refuse)
        for plan in of.plans
        if plan.spec.refuse and not (plan.rule and plan.rule.fixed)
    ]


def _remarks(of: Analysis, verbose: bool) -> Iterable[str]:
    yield f"Removable: {of.removable:.1%} of the parameters lie in a slice that can be removed."
    if of.averages:
        kinds = ", ".join(f"{n} {op}" for op, n in Counter(a.op for a in of.averages).most_common(4))
        yield f"Averages: {kinds} will take statistics over the channels that are left."
    if verbose:
        yield from (f"{a.op} {a.node!r} averages over {', '.join(a.groups)}." for a in of.averages)
        yield from (f"{op} {node!r} is not covered: {reason}  [{code}]" for op, node, code, reason in uncovered(of))
    left_out = Counter(op for op, *_ in uncovered(of))
    if left_out:
        kinds = ", ".join(f"{n} {op}" for op, n in left_out.most_common(6))
        yield f"Not covered: {kinds}; all that they touch stays."
    uncounted = Counter(p.node.type for p in of.plans if p.rule is None)
    if uncounted:
        kinds = ", ".join(f"{n} {op}" for op, n in uncounted.most_common(6))
        yield f"Not counted: {kinds}; no rule says what they cost."
    yield from (f"Note: {note}." for note in of.graph.notes)
