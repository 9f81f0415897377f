"""Modelled latency: which kernels take the time, and what binds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from rich.console import RenderableType

from onnxmorph.analysis import Analysis
from onnxmorph.latency import SIDES, Roofline
from onnxmorph.report.drawing import Document, add_row, paragraph, quantity, share_bar, shorten, table_of

ROWS = 12  # of the table of kernels


def latency_document(of: Analysis) -> Document:
    """What ``analyze --device --json`` says of every kernel; nothing where no device models them."""
    model = of.costs.get("latency")
    if not isinstance(model, Roofline):
        return {}
    times, binds = model.per_kernel(of.widths)
    return {
        "kernels": [
            {"nodes": names, "ops": kinds, "dtype": k.dtype.name, "seconds": t, "binds": SIDES[side]}
            for k, (names, kinds), t, side in zip(
                model.kernels, _named(of, model), times.tolist(), binds.tolist(), strict=True
            )
        ]
    }


def latency(of: Analysis, verbose: bool = False) -> list[RenderableType]:
    """What ``analyze --device`` shows: time by kind of kernel, dearest first; nothing where no device models it."""
    model = of.costs.get("latency")
    if not isinstance(model, Roofline):
        return []
    times, binds = (each.tolist() for each in model.per_kernel(of.widths))
    found = sorted(zip((" + ".join(kinds) for _, kinds in _named(of, model)), times, binds, strict=True))
    rows = []
    for kind, same in groupby(found, itemgetter(0)):
        spent = dict.fromkeys(range(len(SIDES)), 0.0)
        for _, seconds, side in same:
            spent[side] += seconds
        rows.append((sum(spent.values()), kind, SIDES[max(spent, key=lambda side: spent[side])]))
    counts, total = Counter(kind for kind, _, _ in found), sum(times)
    table = table_of("Modelled latency by kernel", "kernel", "count", "time", "bound by", "of time", right=3)
    for seconds, kind, side in sorted(rows, reverse=True)[: None if verbose else ROWS]:
        bar = share_bar(seconds / total if total else 0)
        add_row(table, shorten(kind, 34), str(counts[kind]), quantity("latency", seconds), side, bar)
    table.add_section()
    add_row(table, "total", str(len(times)), quantity("latency", total), "", "", style="bold")
    if len(rows) > ROWS and not verbose:
        return ["", table, paragraph(f"{len(rows) - ROWS} more kinds: --verbose.")]
    return ["", table]


def _named(of: Analysis, model: Roofline) -> Iterator[tuple[list[str], list[str]]]:
    """The names and the types of the nodes of every kernel."""
    for kernel in model.kernels:
        nodes = [of.plans[step].node for step in kernel.steps]
        yield [node.name or node.outputs[0] for node in nodes], [node.type for node in nodes]
