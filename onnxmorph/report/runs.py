"""A run of the whole algorithm, and a sweep of many: what they visited, and what none dominates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table

from onnxmorph.algorithm import Run
from onnxmorph.report.documents import document
from onnxmorph.report.drawing import Document, add_row, cost_name, paragraph, plain, plural, quantity, shorten, table_of
from onnxmorph.rounds import Plan
from onnxmorph.sweeps import PRINTED, Sweep

ROWS = 24
BEST = "●"
Row = Mapping[str, Any]


def run_document(of: Run) -> Document:
    """What ``morph --json`` prints."""
    fields = {
        "folder": str(of.folder),
        "model": str(of.model),
        "rounds": of.rounds,
        "stable": of.stable,
        "visited": of.to_records(),
    }
    return document("morph", fields)


def run(of: Run, plan: Plan, verbose: bool = False) -> list[RenderableType]:
    """What ``morph`` shows: every network but the milestones that were not measured, and how it ended."""
    rows = of.to_records()
    shown = [row for row in rows if verbose or row["kind"] != "milestone" or row["metric"] is not None]
    table = _table("The networks of the run", plan.costs, shown, 0)
    rounds = plural(of.rounds, "round")
    end = f"The widths settled after {rounds}." if of.stable else f"The widths still moved after {rounds}."
    more = len(rows) - len(shown)
    lines = [end, *([f"{plural(more, 'more structure')} met while training: --verbose."] if more else [])]
    written = [of.model, of.folder / "pareto.csv"]
    return [table, "", *map(paragraph, (*_legend(rows), *lines)), *(f"  Written: {plain(path)}" for path in written)]


def sweep_document(of: Sweep) -> Document:
    """What ``sweep --json`` prints."""
    failed = [{"job": each.job, "code": each.code, "message": each.message} for each in of.failed]
    fields = {"folder": str(of.folder), "jobs": list(of.jobs), "failed": failed, "visited": list(of.rows)}
    return document("sweep", fields)


def sweep(of: Sweep, verbose: bool = False) -> list[RenderableType]:
    """What ``sweep`` shows: what none dominates, or else the results of all jobs, or everything; and what failed."""
    best = [row for row in of.rows if row["pareto"]] or [row for row in of.rows if row["kind"] == "final"]
    shown = sorted(of.rows if verbose else best, key=lambda row: tuple(row[cost] for cost in of.costs))
    table = _table(f"The networks of {plural(len(of.jobs), 'job')}", of.costs, shown[: None if verbose else ROWS], 30)
    lines = [*_legend(of.rows), f"All {len(of.rows)} structures: pareto.csv."]
    lines += [f"Failed: {each.job}: {each.message} [{each.code}]" for each in of.failed]
    if of.failed:
        lines.append(f"What a job printed is in {PRINTED} in its folder; call again to go on.")
    return [table, "", *(paragraph(plain(line)) for line in lines), f"  Written: {plain(of.folder / 'pareto.csv')}"]


def _legend(rows: Sequence[Row]) -> Iterable[str]:
    if any(row["pareto"] for row in rows):
        yield f"{BEST} no other network costs as little and is as good."


def _table(title: str, costs: Sequence[str], rows: Sequence[Row], job: int) -> Table:
    """A row per network, with its job where `job` is the width of that column."""
    names = tuple(dict.fromkeys((*costs, "params")))
    first = ("job",) if job else ()
    headings = (*first, "round", "network", *map(cost_name, names), "metric", "")
    table = table_of(title, *headings, right=len(names) + 1)
    for row in rows:
        metric = "-" if row["metric"] is None else f"{row['metric']:.4g}"
        cells = (
            str(row["round"]),
            row["kind"],
            *(quantity(name, row[name]) if name in row else "-" for name in names),
            metric,
        )
        add_row(table, *([shorten(row["job"], job)] if job else []), *cells, BEST if row["pareto"] else "")
    return table
