"""A report that was written: what it is of, and where it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import RenderableType

from onnxmorph.report.documents import document as versioned
from onnxmorph.report.drawing import (
    Document,
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
    return versioned("report", fields)


def reported(of: Document, output: Path, figures: Sequence[Path]) -> list[RenderableType]:
    """What ``report`` shows: a row for each subject, and what was written."""
    cost = of["cost"]
    table = table_of("Reported", "", "kind", cost_name(cost), "of before", "networks", "", right=3)
    for each in of["subjects"]:
        before, after = (each["costs"].get(when, {}).get(cost) for when in ("before", "after"))
        last = before if after is None else after
        share = "" if before is None or after is None else percent(after, before)
        cells = ("-" if last is None else quantity(cost, last), share, str(len(each["points"])), "")
        add_row(table, shorten(each["name"], 40), each["kind"], *cells)
    written = [f"  Written: {plain(output)}"]
    if figures:
        written.append(f"  Written: {len(figures)} figures in {plain(figures[0].parent)}")
    return [table, "", paragraph("Open it in any browser; it needs no network."), *written]
