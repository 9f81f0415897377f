"""The figures of a report for papers, as SVG and PNG; the only module that imports matplotlib."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxmorph.errors import OnnxMorphError, OutputError
from onnxmorph.files import whole
from onnxmorph.report.drawing import Document, cost_name, quantity, shorten

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from matplotlib.ticker import MaxNLocator
except ImportError:
    message = "figures are drawn by matplotlib, which is not installed; pip install 'onnxmorph[report]'"
    raise OnnxMorphError(message, code="report-extra") from None

STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a name with $ in it is a name
    "svg.hashsalt": "onnxmorph",  # the same file from the same numbers
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
}
WIDE = 6.9  # inches: two columns of most papers
MULTIPLIERS = (0.25, 0.5, 0.75, 1)  # that are marked
PARTS = 10  # of a bar of shares
GREY = "#8b95a5"


def save_figures(document: Document, folder: Path) -> list[Path]:
    """Write every figure of a report as ``NAME.svg`` and ``NAME.png``; each file whole or not at all.

    Raises:
        OutputError: the folder cannot be written.
    """
    written = []
    with matplotlib.rc_context(STYLE):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            message = f"{folder}: cannot be written ({e.strerror}); choose another folder"
            raise OutputError(message, code="output") from None
        for name, figure in _figures(document):
            for kind, said in (("svg", {"Date": None}), ("png", {})):
                path = folder / f"{name}.{kind}"
                with whole(path) as place:
                    figure.savefig(place, metadata=said)
                written.append(path)
    return written


def _figures(document: Document) -> Iterator[tuple[str, Figure]]:
    subjects, cost = document["subjects"], document["cost"]
    if any(cost in point["costs"] for each in subjects for point in each["points"]):
        yield "tradeoff", tradeoff(subjects, cost)
    taken: set[str] = set()
    for each in subjects:
        name = re.sub(r"[^A-Za-z0-9._=-]+", "_", each["name"]).strip("._") or "subject"
        while name in taken:
            name += "_"
        taken.add(name)
        if each.get("layers"):
            yield f"{name}-layers", layers(each, cost)
            yield f"{name}-costs", shares(each, cost)
        if each["series"]:
            yield f"{name}-training", training(each)


def layers(of: Document, cost: str) -> Figure:
    """Widths from the first layer to the last: what was behind, what is in the colour of the price."""
    figure = Figure(figsize=(WIDE, 2.3))
    axes: Axes = figure.subplots()
    every = of["layers"]
    at = of["priced"].index(cost)
    prices = [max((of["groups"][g]["price"][0][at] for g in each["groups"]), default=0) for each in every]
    known = [price for price in prices if price > 0]
    norm = LogNorm(min(known, default=1), max(known, default=10))
    colours = [matplotlib.colormaps["viridis_r"](norm(price)) if price > 0 else GREY for price in prices]
    places, thick = range(1, len(every) + 1), 0.82 if len(every) < 150 else 1.0
    axes.bar(places, [each["out"][0] for each in every], thick, color="#dfe3ea", label="before")
    axes.bar(places, [each["out"][1] for each in every], thick, color=colours)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    free = [max(each["out"]) for each in every if each["groups"]]  # a classifier would dwarf all others
    limits = {"xlim": (0.5, len(every) + 0.5), "ylim": (0, 1.05 * max(free) if free else None)}
    for place, each in zip(places, every, strict=True):
        if free and each["out"][1] > 1.05 * max(free):
            axes.text(place, max(free), f"{each['out'][1]:,}", ha="right", va="top", rotation=90)
    axes.set(xlabel=f"layer of {shorten(of['name'], 50)}", ylabel="channels", **limits)
    if known:
        beside = figure.colorbar(ScalarMappable(norm, "viridis_r"), ax=axes, pad=0.01)
        beside.set_label(f"{cost_name(cost)} of one channel")
        beside.ax.yaxis.set_major_formatter(lambda value, _: quantity(cost, value))
        beside.ax.yaxis.set_minor_formatter(
            lambda value, _: quantity(cost, value) if max(known) < 10 * min(known) else ""
        )
    said = [Patch(color="#dfe3ea", label="before"), Patch(color=GREY, label="stays")]
    axes.legend(handles=said, frameon=False, loc="upper left", bbox_to_anchor=(0, 1.18), ncols=2)
    return figure


def shares(of: Document, cost: str) -> Figure:
    """What ops and groups cost before and after, dearest first."""
    at, priced = of["shared"].index(cost) if cost in of["shared"] else None, of["priced"].index(cost)
    by_op = [] if at is None else [(t["op"], t["costs"][0][at], t["costs"][1][at]) for t in of["types"]]
    by_group = [
        (g["id"], g["before"] * g["price"][0][priced], g["after"] * g["price"][1][priced]) for g in of["groups"]
    ]
    found = [(title, rows) for title, rows in (("op", by_op), ("group", by_group)) if any(row[1] for row in rows)]
    most = max((min(len(rows), PARTS) for _, rows in found), default=1)
    figure = Figure(figsize=(WIDE, 0.7 + 0.22 * most))
    for axes, (title, rows) in zip(figure.subplots(1, max(len(found), 1), squeeze=False)[0], found, strict=False):
        _bars(axes, rows, cost)
        axes.set_title(f"{cost_name(cost)} by {title}")
    return figure


def _bars(axes: Axes, rows: Sequence[tuple[str, float, float]], cost: str) -> None:
    shown = sorted((row for row in rows if row[1] or row[2]), key=lambda row: -row[1])[:PARTS][::-1]
    places = range(len(shown))
    axes.barh(places, [row[1] for row in shown], 0.8, color="#dfe3ea", label="before")
    axes.barh(places, [row[2] for row in shown], 0.5, color="#2563c9", label="after")
    axes.set_yticks(places, [shorten(row[0], 22) for row in shown])
    axes.xaxis.set_major_formatter(lambda value, _: quantity(cost, value))
    axes.locator_params(axis="x", nbins=4)
    axes.legend(frameon=False, loc="lower right")


def tradeoff(subjects: Sequence[Document], cost: str) -> Figure:
    """All networks that were visited: their metric over their cost, or else their parameters, with the multiplier's."""
    rated = [p for each in subjects for p in each["points"] if p["metric"] is not None and cost in p["costs"]]
    other = "params" if cost != "params" else "flops"
    figure = Figure(figsize=(WIDE / 2, 2.6))
    axes: Axes = figure.subplots()

    def height(point: Mapping[str, Any]) -> float | None:
        found: float | None = point["metric"] if len(rated) > 1 else point["costs"].get(other)
        return found

    multiplied: dict[float, list[float]] = {}
    for each in subjects:
        points = [(p["costs"].get(cost), height(p), p["multiplied"]) for p in each["points"]]
        own = [(x, y) for x, y, of_all in points if x is not None and y is not None and not of_all]
        if own:
            axes.plot(*zip(*own, strict=True), "o", ms=3.5, label=shorten(each["name"], 30))
        for x, y, of_all in points:
            if of_all and x is not None and y is not None:
                multiplied.setdefault(x, []).append(y)
    model: Document = next((each["curve"] for each in subjects if each.get("curve")), {"omega": [], "costs": {}})
    curve = [(x, sum(ys) / len(ys)) for x, ys in sorted(multiplied.items())]
    if len(rated) < 2:
        curve = list(zip(*(model["costs"].get(name, ()) for name in (cost, other)), strict=True))
    if curve:
        axes.plot(*zip(*curve, strict=True), "--", color=GREY, lw=1.2, label="width multiplier", zorder=0)
    axes.xaxis.set_major_formatter(lambda value, _: quantity(cost, value))
    axes.locator_params(axis="x", nbins=5)
    if len(rated) < 2:
        axes.yaxis.set_major_formatter(lambda value, _: quantity(other, value))
    axes.set(xlabel=cost_name(cost), ylabel="metric" if len(rated) > 1 else cost_name(other), xlim=(0, None))
    axes.legend(frameon=False)
    every = zip(model["omega"], model["costs"].get(cost, ()), strict=False)
    marks = [(x, f"×{omega:g}") for omega, x in every if omega in MULTIPLIERS]
    marks = marks if marks and marks[-1][0] > axes.get_xlim()[1] / 2 else []  # else they would lie upon each other
    if marks:
        above = axes.secondary_xaxis("top")
        above.set_xticks(*zip(*marks, strict=True))
        above.set_xlabel("width multiplier at that cost")
    return figure


def training(of: Document) -> Figure:
    """The strength and costs over the steps, and the width of every group."""
    series = of["series"]
    parts = [name for name in ("strength", "costs", "widths") if series[name]]
    figure = Figure(figsize=(WIDE, 0.5 + 1.4 * len(parts)))
    plots = dict(zip(parts, figure.subplots(max(len(parts), 1), sharex=True, squeeze=False)[:, 0], strict=False))
    steps = series["steps"]
    if "strength" in plots:
        plots["strength"].plot(steps, _gaps(series["strength"]), lw=1.2)
        plots["strength"].set(ylabel="strength λ")
    if "costs" in plots:
        for name, values in series["costs"].items():
            if values[0] and name in ("flops", "params", "peak_memory", "latency"):
                plots["costs"].plot(steps, [v / values[0] for v in _gaps(values)], lw=1.2, label=cost_name(name))
        plots["costs"].set(ylabel="share of the first", ylim=(0, None))
        plots["costs"].legend(frameon=False)
    if "widths" in plots:
        image = [_shares(each["changes"], len(steps)) for each in series["widths"]]
        extent = (steps[0], max(steps[-1], steps[0] + 1), len(image), 0)
        drawn = plots["widths"].imshow(
            image, aspect="auto", extent=extent, cmap="viridis", vmin=0, interpolation="nearest"
        )
        plots["widths"].set(ylabel="group")
        figure.colorbar(drawn, ax=plots["widths"], label="of its widest", pad=0.01)
    list(plots.values())[-1].set(xlabel=series["unit"])
    return figure


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _shares(changes: Sequence[tuple[int, int | None]], steps: int) -> list[float]:
    """The width at every step, as a share of the largest."""
    most = max(1, *(width or 0 for _, width in changes), 1)
    ends = [*(start for start, _ in changes[1:]), steps]
    return [(width or 0) / most for (start, width), end in zip(changes, ends, strict=True) for _ in range(end - start)]
