"""A morphed model, and its verification."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path

from rich.console import RenderableType

from onnxmorph.analysis import Analysis
from onnxmorph.report.analysed import stays
from onnxmorph.report.documents import document
from onnxmorph.report.drawing import (
    Document,
    add_row,
    cost_name,
    paragraph,
    percent,
    plain,
    plural,
    quantity,
    share_bar,
    shorten,
    table_of,
)
from onnxmorph.surgery import Morphed, Verification

# In the document only, unless they are limited.
FOLDED = ("macs", "activations", "classic_flops", "classic_params", "classic_latency")


def morphed_document(of: Morphed, output: Path, structure: Path | None) -> Document:
    """What ``shrink``, ``scale`` and ``expand`` print with ``--json``."""
    fields = {
        "model": str(output),
        "costs": {when: dict(costs) for when, costs in of.structure.costs.items()},
        "structure": None if structure is None else str(structure),
        "notes": list(of.notes),
        "widths": {g.id: len(g.keep) for g in of.structure.groups},
    }
    return document("morphed", fields)


def morphed(
    of: Morphed, output: Path, structure: Path | None, analysis: Analysis | None = None
) -> list[RenderableType]:
    """What ``shrink``, ``scale`` and ``expand`` show: costs before and after, what was written, notes.

    With the analysis also why: what every group gave, and what had to stay.
    """
    before, after = of.structure.costs["before"], of.structure.costs["after"]
    table = table_of("Costs", "", "before", "after", "of before", "", right=3)
    limited = _limited(of)
    for name in (n for n in before if n not in FOLDED or n in limited):
        share = percent(after[name], before[name])
        bar = share_bar(after[name] / before[name] if before[name] else 0)
        add_row(table, cost_name(name), quantity(name, before[name]), quantity(name, after[name]), share, bar)
    changed = [g for g in of.structure.groups if len(g.keep) != g.width]
    full, now = (sum(n) for n in ([g.width for g in of.structure.groups], of.structure.widths.tolist()))
    groups = plural(len(of.structure.groups), "channel group")
    widths = f"{len(changed):,} of {groups} changed width: {full:,} → {now:,} channels."
    empty = sum(not g.keep for g in changed)
    widths += f" {empty:,} went as a whole." if empty else ""
    written = ["stdout" if str(output) == "-" else str(output), *([] if structure is None else [str(structure)])]
    notes = (paragraph(plain(f"Note: {note}.")) for note in of.notes)
    why = [] if analysis is None else _why(of, analysis)
    return [table, "", *why, paragraph(widths), *notes, *(f"  Written: {plain(path)}" for path in written)]


def _limited(of: Morphed) -> list[str]:
    """The costs that the budget names."""
    return re.findall(r"(\w+)=", str(of.structure.provenance))


def _why(of: Morphed, analysis: Analysis) -> list[RenderableType]:
    """What every group gave for the first cost in the budget, and why the rest stayed."""
    cost = next((name for name in _limited(of) if name in analysis.costs), "flops")
    prices = analysis.costs[cost].gradient(analysis.widths).tolist()
    full, name = analysis.costs[cost].value(analysis.widths), cost_name(cost)
    table = table_of("Widths, and the price of one channel", "group", "before", "after", name, f"of {name}", right=3)
    for group, price in zip(of.structure.groups, prices, strict=True):
        bar = share_bar(price * group.width / full if full else 0)
        cells = (f"{group.width:,}", f"{len(group.keep):,}", quantity(cost, price), bar)
        add_row(table, shorten(group.id, 34), *cells)
    asked = ", ".join(f"{key}: {value}" for key, value in of.structure.provenance.items())
    shown: list[RenderableType] = [table, paragraph(plain(f"Found by {asked}.")), ""]
    return [*shown, *stays(analysis, True)] if analysis.fixed else shown


def verification_document(of: Verification) -> Document:
    """What ``verify --json`` prints; a difference that is no finite number is null."""

    def number(value: float) -> float | None:
        return float(value) if isfinite(value) else None

    fields = {
        "difference": number(of.difference),
        "tolerance": of.tolerance,
        "ok": of.ok,
        "folded": number(of.folded),
        "outputs": {name: number(value) for name, value in of.outputs.items()},
        "samples": of.samples,
    }
    return document("verify", fields)


def verification(of: Verification, small: Path, verbose: bool = False) -> list[RenderableType]:
    """What ``verify`` shows: the verdict in one line, and what it rests on."""
    verdict = "equals" if of.ok else "DIFFERS FROM"
    measured = f"Largest relative difference {of.difference:.2g}, limit {of.tolerance:g}"
    lines = [f"{measured}, {plural(of.samples, 'random input')}."]
    if of.folded:
        lines.append(f"Constants of removed channels, folded into biases, moved the output by {of.folded:.2g}.")
    if len(of.outputs) > 1:
        lines.append(f"Largest in output {max(of.outputs, key=lambda name: of.outputs[name])!r}.")
    if verbose:
        lines += [f"Output {name!r} differs by {value:.2g}." for name, value in of.outputs.items()]
    return [plain(f"{small} {verdict} the zero-masked original."), *(paragraph(plain(text)) for text in lines)]
