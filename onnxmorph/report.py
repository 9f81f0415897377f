"""Results as tables for people and as JSON documents for machines.

Tables are what rich can draw; they read without colour and fit 80 columns. Names come from files that anyone
may have written, so no control character reaches a terminal and nothing in them is read as markup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from onnxmorph.analysis import Analysis, Group
from onnxmorph.cost import NAMES
from onnxmorph.surgery import Morphed, Verification

Document = dict[str, Any]
GROUPS = 20  # rows of the table of groups


# -- text ----------------------------------------------------------------------------------------


def plain(text: object) -> str:
    r"""One line that is safe on a terminal: control and formatting characters as escapes.

    >>> print(plain("a" + chr(27) + "[31m b"))
    a\x1b[31m b
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shorten(text: object, width: int) -> str:
    """The end of a long name, which tells more than its beginning.

    >>> shorten("backbone.layer1.0.conv1.weight", 17)
    '…1.0.conv1.weight'
    """
    line = plain(text)
    return line if len(line) <= width else f"…{line[-width + 1 :]}"


def amount(number: float) -> str:
    """Three significant digits and a unit.

    >>> amount(1814073344), amount(999.6e6), amount(512), amount(0)
    ('1.81 G', '1.00 G', '512', '0')
    """
    if abs(number) < 1000:
        return f"{number:.4g}"
    exponent = min(int(np.log10(float(f"{abs(number):.2e}"))) // 3, 6)
    return f"{number / 1000.0**exponent:#.3g}".rstrip(".") + f" {' kMGTPE'[exponent]}"


def percent(part: float, whole: float) -> str:
    """A share, or a dash where there is no whole."""
    return f"{part / whole:.1%}" if whole else "-"


def _plural(number: int, word: str) -> str:
    return f"{number:,} {word}" + ("" if number == 1 else "s")


# -- drawing -------------------------------------------------------------------------------------


def _table(title: str, *columns: str, right: int = 0, wrap: bool = False) -> Table:
    """A table whose last columns but one are numbers: `right` of them. ``wrap`` lets the last column wrap."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=box.SIMPLE_HEAD,
        show_edge=False, pad_edge=False, collapse_padding=True,
    )  # fmt: skip
    last = len(columns) - 1
    for i, heading in enumerate(columns):
        justify: Any = "right" if last - right <= i < last else "left"
        table.add_column(heading, justify=justify, no_wrap=not (wrap and i == last), overflow="fold")
    return table


def _row(table: Table, *cells: RenderableType, style: str = "") -> None:
    table.add_row(*(Text(c) if isinstance(c, str) else c for c in cells), style=style)


def _line(text: str) -> Padding:
    return Padding(Text(text), (0, 2))


def _bar(share: float) -> ProgressBar:
    return ProgressBar(
        total=1.0, completed=min(max(share, 0.0), 1.0), width=10, complete_style="cyan", finished_style="cyan"
    )


# -- an analysis ---------------------------------------------------------------------------------


def document(of: Analysis) -> Document:
    """What ``analyze --json`` prints."""
    widths = of.widths
    prices = {name: cost.gradient(widths).tolist() for name, cost in of.costs.items()}
    return {
        "model": of.graph.source,
        "fingerprint": of.graph.fingerprint,
        "costs": _costs(of),
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
        "averages": [{"node": a.node, "op": a.op, "groups": list(a.groups)} for a in of.averages],
        "uncovered": [dict(zip(("op", "node", "code", "reason"), u, strict=True)) for u in uncovered(of)],
        "notes": list(of.graph.notes),
    }


def analysis(of: Analysis) -> list[RenderableType]:
    """What ``analyze`` shows: costs by op, groups by cost, what is fixed and why."""
    heading = f"{of.graph.source}: {_plural(len(of.plans), 'op')}, {_plural(len(of.groups), 'channel group')}"
    shown: list[RenderableType] = [plain(heading), "", op_table(of), *_classic(of), ""]
    if of.groups:
        shown += [group_table(of), *_more_groups(of), ""]
    if of.fixed:
        shown += [fixed_table(of), ""]
    return [*shown, *(_line(plain(text)) for text in _remarks(of))]


def _costs(of: Analysis) -> dict[str, int]:
    return {name: of.costs[name].value(of.widths) for name in NAMES}


def op_table(of: Analysis) -> Table:
    """Costs by type of op, dearest first; types that cost nothing share the last row."""
    names = ("flops", "macs", "params", "activations")
    per_op = np.array([[p.value(of.widths) for p in of.op_costs[n]] for n in names], dtype=object)
    kinds: dict[str, list[Any]] = {}
    for plan, costs in zip(of.plans, per_op.T, strict=True):
        row = kinds.setdefault(plan.node.type, [0, 0, 0, 0, 0])
        kinds[plan.node.type] = [row[0] + 1, *(a + b for a, b in zip(row[1:], costs, strict=True))]
    totals = [len(of.plans), *(of.costs[n].value(of.widths) for n in names)]
    headings = ("op", "count", "FLOPs", "MACs", "params", "activations", "of FLOPs")
    table = _table("Costs by op", *headings, right=5)
    free = 0
    for kind, row in sorted(kinds.items(), key=lambda item: [-n for n in item[1][1:]]):
        if any(row[1:]):
            bar = _bar(row[1] / totals[1] if totals[1] else 0)
            _row(table, shorten(kind, 22), str(row[0]), *(amount(n) for n in row[1:]), bar)
        else:
            free += row[0]
    if free:
        _row(table, "without cost", str(free), *[""] * 5, style="dim")
    table.add_section()
    _row(table, "total", str(totals[0]), *(amount(n) for n in totals[1:]), "", style="bold")
    return table


def _classic(of: Analysis) -> list[RenderableType]:
    flops, params = (amount(of.costs[n].value(of.widths)) for n in ("classic_flops", "classic_params"))
    text = f"Convolutions and matrix products only, without biases and norms: {flops} FLOPs, {params} params."
    return [_line(text)]


def _by_cost(of: Analysis) -> list[tuple[float, int, int, Group]]:
    """Per group: the FLOPs that would go with all of it, the FLOPs and params of one channel; dearest first."""
    flops, params = (of.costs[n].gradient(of.widths).tolist() for n in ("flops", "params"))
    rows = [(f * g.width, f, p, g) for f, p, g in zip(flops, params, of.groups, strict=True)]
    return sorted(rows, key=lambda row: (-row[0], -row[2]))


def group_table(of: Analysis) -> Table:
    """The groups that cost most: width, price of one channel, and where the channels stand."""
    total = of.costs["flops"].value(of.widths)
    headings = ("group", "width", "FLOPs each", "params each", "in", "of FLOPs")
    table = _table("Channel groups, dearest first", *headings, right=4)
    for whole, flops, params, g in _by_cost(of)[:GROUPS]:
        axes = _plural(len(g.members), "axis").replace("axiss", "axes")
        bar = _bar(whole / total if total else 0)
        _row(table, shorten(g.id, 28), f"{g.width:,}", amount(flops), amount(params), axes, bar)
    return table


def _more_groups(of: Analysis) -> Iterable[RenderableType]:
    yield _line("of FLOPs: what would go if all channels of the group went.")
    if len(of.groups) > GROUPS:
        yield _line(f"{_plural(len(of.groups) - GROUPS, 'more group')} and all members: --json.")


def fixed_table(of: Analysis) -> Table:
    """Why axes of parameters stay: counts per code, with the commonest reason as the example."""
    table = _table("What stays, and why", "code", "axes", "for example", right=1, wrap=True)
    for code, count in Counter(f.code for f in of.fixed).most_common():
        first = next(f for f in of.fixed if f.code == code)
        _row(table, code, str(count), f"{shorten(first.tensor, 30)}:{first.axis}, {shorten(first.reason, 120)}")
    return table


def uncovered(of: Analysis) -> list[tuple[str, str, str, str]]:
    """Ops that no rule covers, or whose rule does not cover this form: type, name, code and reason."""
    return [
        (plan.node.type, plan.node.name or plan.node.outputs[0], *plan.spec.refuse)
        for plan in of.plans
        if plan.spec.refuse
    ]


def _remarks(of: Analysis) -> Iterable[str]:
    yield f"Removable: {of.removable:.1%} of the parameters lie in a slice that can be removed."
    if of.averages:
        kinds = ", ".join(f"{n} {op}" for op, n in Counter(a.op for a in of.averages).most_common(4))
        yield f"Averages: {kinds} will take statistics over the channels that are left."
    left_out = Counter(op for op, *_ in uncovered(of))
    if left_out:
        kinds = ", ".join(f"{n} {op}" for op, n in left_out.most_common(6))
        yield f"Not covered: {kinds}; all that they touch stays."
    uncounted = Counter(p.node.type for p in of.plans if p.rule is None)
    if uncounted:
        kinds = ", ".join(f"{n} {op}" for op, n in uncounted.most_common(6))
        yield f"Not counted: {kinds}; no rule says what they cost."
    yield from (f"Note: {note}." for note in of.graph.notes)


# -- a morphed model -----------------------------------------------------------------------------


def morphed_document(of: Morphed, output: Path, structure: Path | None) -> Document:
    """What ``shrink``, ``scale`` and ``expand`` print with ``--json``."""
    return {
        "model": str(output),
        "costs": {when: dict(costs) for when, costs in of.structure.costs.items()},
        "structure": None if structure is None else str(structure),
        "notes": list(of.notes),
        "widths": {g.id: len(g.keep) for g in of.structure.groups},
    }


def morphed(of: Morphed, output: Path, structure: Path | None) -> list[RenderableType]:
    """What ``shrink``, ``scale`` and ``expand`` show: costs before and after, what was written, notes."""
    before, after = of.structure.costs["before"], of.structure.costs["after"]
    table = _table("Costs", "", "before", "after", "of before", "", right=3)
    for name in NAMES:
        share = percent(after[name], before[name])
        bar = _bar(after[name] / before[name] if before[name] else 0)
        _row(table, name.replace("_", " "), amount(before[name]), amount(after[name]), share, bar)
    changed = [g for g in of.structure.groups if len(g.keep) != g.width]
    full, now = (sum(n) for n in ([g.width for g in of.structure.groups], of.structure.widths.tolist()))
    groups = _plural(len(of.structure.groups), "channel group")
    widths = f"{len(changed):,} of {groups} changed width: {full:,} → {now:,} channels."
    written = [str(output), *([] if structure is None else [str(structure)])]
    notes = (_line(plain(f"Note: {note}.")) for note in of.notes)
    return [table, "", _line(widths), *notes, *(f"  Written: {plain(path)}" for path in written)]


# -- a verification ------------------------------------------------------------------------------


def verification_document(of: Verification) -> Document:
    """What ``verify --json`` prints; a difference that is no finite number is null."""

    def number(value: float) -> float | None:
        return float(value) if isfinite(value) else None

    return {
        "difference": number(of.difference),
        "tolerance": of.tolerance,
        "ok": of.ok,
        "folded": number(of.folded),
        "outputs": {name: number(value) for name, value in of.outputs.items()},
        "samples": of.samples,
    }


def verification(of: Verification, small: Path) -> list[RenderableType]:
    """What ``verify`` shows: the verdict in one line, and what it rests on."""
    verdict = "equals" if of.ok else "DIFFERS FROM"
    measured = f"Largest relative difference {of.difference:.2g}, limit {of.tolerance:g}"
    lines = [f"{measured}, {_plural(of.samples, 'random input')}."]
    if of.folded:
        lines.append(f"Constants of removed channels, folded into biases, moved the output by {of.folded:.2g}.")
    if len(of.outputs) > 1:
        lines.append(f"Largest in output {max(of.outputs, key=lambda name: of.outputs[name])!r}.")
    return [plain(f"{small} {verdict} the zero-masked original."), *(_line(plain(text)) for text in lines)]
