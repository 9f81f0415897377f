"""Two networks side by side: costs, widths, and what came, went or changed of the topology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import RenderableType

from onnxmorph.differences import Change, Difference, Side
from onnxmorph.report.documents import Document, document
from onnxmorph.report.drawing import (
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

ROWS = 24  # of a table
KINDS = 6  # of ops that a line names


def difference_document(of: Difference) -> Document:
    """What ``diff --json`` prints."""
    fields = {
        "before": _side(of.before),
        "after": _side(of.after),
        "same": of.same,
        "costs": {c.name: {"before": c.before, "after": c.after} for c in of.costs},
        "widths": {c.name: {"before": c.before, "after": c.after} for c in of.widths},
        "parameters": [{"tensor": c.name, "before": c.before, "after": c.after} for c in of.parameters if not c.same],
        "ops": [{"node": c.name, "before": _op(c.before), "after": _op(c.after)} for c in of.ops if not c.same],
    }
    return document("diff", fields)


def _side(of: Side) -> Document:
    return {"name": of.name, "kind": of.kind, "fingerprint": of.fingerprint}


def _op(of: tuple[str, ...] | None) -> Document | None:
    return None if of is None else {"op": of[0], "inputs": list(of[1:])}


def difference(of: Difference, verbose: bool = False) -> list[RenderableType]:
    """What ``diff`` shows."""
    shown: list[RenderableType] = [plain(f"{of.before.name} → {of.after.name}"), ""]
    costs = table_of("Costs", "", "before", "after", "of before", "", right=3)
    for cost in of.costs:
        if cost.before is not None and cost.after is not None:
            share, whole = percent(cost.after, cost.before), max(cost.before, cost.after)
            cells = (quantity(cost.name, cost.before), quantity(cost.name, cost.after), share)
            add_row(costs, cost_name(cost.name), *cells, share_bar(cost.after / whole if whole else 0))
    shown += [costs, ""] if costs.row_count else []
    shown += _table("Widths", "group", of.widths, verbose)
    shown += _table("Parameters", "tensor", of.parameters, verbose)
    lines = ["Nothing differs but the weights, which are not compared."] if of.same else list(_topology(of, verbose))
    return [*shown, *(paragraph(plain(line)) for line in lines)]


def _table(title: str, heading: str, of: Sequence[Change[Any]], verbose: bool) -> Iterable[RenderableType]:
    """What changed, or everything; a line for the rest."""
    if not of:
        return
    rows = of if verbose else [c for c in of if not c.same]
    if rows:
        table = table_of(title, heading, "before", "after", "", right=2)
        for row in rows if verbose else rows[:ROWS]:
            add_row(table, shorten(row.name, 40), _size(row.before), _size(row.after), "" if row.same else "≠")
        yield table
    more = f"{plural(len(rows) - ROWS, 'more change')}: --verbose. " if len(rows) > ROWS and not verbose else ""
    same = sum(c.same for c in of)
    yield paragraph(f"{more}{title}: {same:,} of {len(of):,} are the same.")
    yield ""


def _size(of: Any) -> str:
    """A width or a shape."""
    return "-" if of is None else "×".join(f"{n:,}" for n in of) if isinstance(of, tuple) else f"{of:,}"


def _topology(of: Difference, verbose: bool) -> Iterable[str]:
    if not of.ops:
        return
    kinds = {
        "gone": [c for c in of.ops if c.after is None],
        "new": [c for c in of.ops if c.before is None],
        "changed": [c for c in of.ops if c.before and c.after and not c.same],
    }
    counts = ", ".join(f"{len(found):,} {word}" for word, found in kinds.items())
    yield f"Ops: {sum(c.same for c in of.ops):,} are the same, {counts}."
    for word, found in kinds.items():
        types = Counter((c.before or c.after or ("",))[0] for c in found)
        if found and not verbose:
            more = f" and {len(types) - KINDS} more kinds" if len(types) > KINDS else ""
            yield f"{word.capitalize()}: {', '.join(f'{n} {op}' for op, n in types.most_common(KINDS))}{more}."
        elif verbose:
            yield from (f"{word.capitalize()}: {_told(c)}" for c in found)


def _told(of: Change[tuple[str, ...]]) -> str:
    one, other = (None if each is None else f"{each[0]}({', '.join(each[1:])})" for each in (of.before, of.after))
    return f"{of.name!r}: {' → '.join(each for each in (one, other) if each is not None)}"
