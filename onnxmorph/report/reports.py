"""A report that was written: what it is of, and where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType

from onnxmorph.report.documents import Document, document
from onnxmorph.report.drawing import (
    add_row,
    cost_name,
    paragraph,
    percent,
    plain,
    quantity,
    shorten,
    table_of,
)


def reported_document(of: Document, output: Path, figures: Sequence[Path]) -> Document:
    """What ``report --json`` prints."""
    subjects = [{key: each[key] for key in ("name", "kind", "costs")} for each in of["subjects"]]
    fields = {
        "report": str(output),
        "bytes": output.stat().st_size,
        "figures": [str(path) for path in figures],
        "subjects": subjects,
    }
    return document("report", fields)


def reported(of: Document, output: Path, figures: Sequence[Path], verbose: bool = False) -> list[RenderableType]:
    """What ``report`` shows: a row for each subject, and what was written; every cost and file where `verbose`."""
    cost = of["cost"]
    table = table_of("Reported", "", "kind", cost_name(cost), "of before", "networks", "", right=3)
    for each in of["subjects"]:
        shown = [cost, *(name for name in each["costs"]["before"] if name != cost)] if verbose else [cost]
        for name in shown:
            before, after = (each["costs"].get(when, {}).get(name) for when in ("before", "after"))
            last = before if after is None else after
            share = "" if before is None or after is None else percent(after, before)
            cells = ("-" if last is None else quantity(name, last), share, str(len(each["points"])))
            add_row(table, shorten(each["name"], 40), each["kind"], *cells, cost_name(name) if verbose else "")
    written = [f"  Written: {plain(output)}"]
    if verbose:
        written += [f"  Written: {plain(path)}" for path in figures]
    elif figures:
        written.append(f"  Written: {len(figures)} figures in {plain(figures[0].parent)}")
    return [table, "", paragraph("Open it in any browser; it needs no network."), *written]
