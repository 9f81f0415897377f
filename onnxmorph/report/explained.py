"""An explanation in plain words: what is cut together, by which ops, and why the rest stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from rich.console import RenderableType

from onnxmorph.analysis import Analysis
from onnxmorph.explain import AxisCase, Chain, Explanation, GroupCase, OpCase
from onnxmorph.report.analysed import stays
from onnxmorph.report.documents import document
from onnxmorph.report.drawing import (
    Document,
    add_row,
    cost_name,
    paragraph,
    plain,
    plural,
    quantity,
    shorten,
    table_of,
)

AXES = 16  # rows of the table of axes
STEPS = 12  # of a way that is shown in full
RANGES = 8  # of positions


def explanation_document(of: Explanation) -> Document:
    """What ``explain --json`` prints."""
    return document("explain", asdict(of))


def explanation(of: Explanation, verbose: bool = False) -> list[RenderableType]:
    """What ``explain`` shows."""
    shown: list[RenderableType] = []
    for part in (
        *(_axis(axis, verbose) for axis in of.axes),
        *(_group(group, verbose) for group in of.groups),
        *(_op(op) for op in of.ops),
    ):
        shown += [*([""] if shown else []), *part]
    return shown or [plain(f"{of.name}: a tensor without axes of channels.")]


def names(of: Analysis, verbose: bool = False) -> list[RenderableType]:
    """What ``explain`` shows without a name: the groups, and why the rest stays."""
    table = table_of("Channel groups", "group", "width", "axes", "", right=2)
    for group in of.groups:
        add_row(table, shorten(group.id, 60), f"{group.width:,}", f"{len(group.members):,}", "")
    shown: list[RenderableType] = [table, ""]
    if of.fixed:
        shown += stays(of, verbose)
    return [*shown, paragraph("Explain a group, a tensor, an axis (TENSOR:AXIS) or a node by its name.")]


def names_document(of: Analysis) -> Document:
    """`names` for machines."""
    groups = {g.id: g.width for g in of.groups}
    return document("groups", {"groups": groups, "fixed": dict(Counter(f.code for f in of.fixed).most_common())})


def _group(of: GroupCase, verbose: bool) -> Iterator[RenderableType]:
    yield plain(f"Group {of.id}: {plural(of.width, 'channel')}, any of which can go, everywhere at once")
    yield ""
    costs = ", ".join(f"{quantity(name, price)} {cost_name(name)}" for name, price in of.price.items())
    yield paragraph(f"One channel costs {costs}.")
    yield ""
    table = table_of("Axes that are cut together", "axis", "positions", "by way of", right=1, wrap=True)
    for member in of.members[: None if verbose else AXES]:
        way = _way(member.chain, verbose) or "(the first)"
        add_row(table, shorten(f"{member.tensor}:{member.axis}", 30), f"{member.positions:,}", way)
    yield table
    if len(of.members) > AXES and not verbose:
        yield paragraph(f"{len(of.members) - AXES:,} more: --verbose.")
    yield ""
    kinds = ", ".join(f"{n} {op}" for op, n in Counter(op for op, _ in of.ops).most_common())
    yield paragraph(plain(f"Its channels pass {plural(len(of.ops), 'op')}: {kinds}."))
    for op, node in of.averages:
        yield paragraph(plain(f"{op} {node!r} averages over it: afterwards over the channels that are left."))


def _axis(of: AxisCase, verbose: bool) -> Iterator[RenderableType]:
    yield plain(f"{of.tensor}:{of.axis}: {plural(of.size, 'position')}")
    for group in of.groups:
        yield paragraph(plain(f"can go: group {group}"))
    for stay in of.stays:
        whole = stay.count == of.size
        some = f"{_ranges(stay.positions, verbose)} ({stay.count:,})"
        which = f"all {stay.count:,}" if whole and stay.count > 1 else some
        yield paragraph(plain(f"stays: {which}: {stay.reason}  [{stay.code}]"))
        if stay.chain:
            end = stay.chain[-1]
            yield paragraph(plain(f"by way of {_way(stay.chain, verbose)}, at {end.tensor}:{end.axis}"))


def _ranges(positions: Iterable[tuple[int, int]], verbose: bool) -> str:
    texts = [str(low) if low == high else f"{low} to {high}" for low, high in positions]
    if verbose or len(texts) <= RANGES:
        return ", ".join(texts)
    return f"{', '.join(texts[:RANGES])}, and {len(texts) - RANGES} more ranges"


def _way(chain: Chain, verbose: bool) -> str:
    steps = [f"{step.op} {shorten(step.node, 40)!r}" for step in chain]
    if len(steps) > STEPS and not verbose:
        steps = [*steps[: STEPS // 2], f"{len(steps) - STEPS} more ops", *steps[-STEPS // 2 :]]
    return ", ".join(steps)


def _op(of: OpCase) -> Iterator[RenderableType]:
    yield plain(f"{of.op} {of.node!r}")
    if of.refused is not None:
        code, reason = of.refused
        yield paragraph(plain(f"All that it touches stays: {reason}  [{code}]"))
    if of.equation:
        yield paragraph(plain(of.equation))
    costs = ", ".join(f"{quantity(name, n)} {cost_name(name)}" for name, n in of.costs.items() if n)
    yield paragraph(f"It costs {costs}." if costs else "It costs nothing.")
    if of.factors:
        yield ""
        table = table_of("Factors", "factor", "size", "channels", right=1, wrap=True)
        for factor in of.factors:
            groups = ", ".join(shorten(g, 40) for g in factor.groups) or "stays"
            add_row(table, factor.name, f"{factor.size:,}", groups + (" (averaged over)" if factor.averaged else ""))
        yield table
