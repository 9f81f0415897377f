"""Explanations as diagrams: a networkx graph in layers, and how DOT and SVG are written from it.

Nodes have a ``label`` of some lines, a ``kind`` (``op``, ``axis``, ``stays``) and a ``layer``; edges a ``label``.
Neither format needs graphviz.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import pairwise

import networkx as nx
import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.explain import AxisCase, Explanation, GroupCase, OpCase

LETTER, LINE, GAP, RISE = 6.6, 15, 18, 34  # pixels: a letter's width, a line's height, between boxes and layers
LONGEST = 30  # letters of a line
COLOURS = {"op": "#e8eefc", "axis": "#ffffff", "stays": "#fde4e1"}


def diagram(analysis: Analysis, explanation: Explanation) -> nx.DiGraph[str]:
    """Groups as the ops that their channels pass, from the parameters on; what stays as the way to its cause."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    for group in explanation.groups:
        _add_group(graph, analysis, group)
    for axis in explanation.axes:
        _add_axis(graph, axis, alone=not explanation.groups)
    for op in explanation.ops:
        _add_op(graph, analysis, op)
    return graph


def _add_group(graph: nx.DiGraph[str], analysis: Analysis, group: GroupCase) -> None:
    number = next(i for i, g in enumerate(analysis.groups) if g.id == group.id)

    def has(tensor: str) -> list[int]:
        rows = analysis.rows.get(tensor) or ()
        return [t for t, r in enumerate(rows) if r is not None and (analysis.group_of[r] == number).any()]

    ops: nx.DiGraph[str] = nx.DiGraph()
    producer: dict[str, str] = {}
    for plan in analysis.plans:
        node = plan.node
        if not any(has(name) for name in node.tensors):
            continue
        key = f"op {node.key}"
        ops.add_node(key)
        graph.add_node(key, kind="op", label=_lines(node.type, node.name))
        for name in dict.fromkeys(n for n in node.inputs if n and has(n)):
            if name in producer:
                ops.add_edge(producer[name], key)
                graph.add_edge(producer[name], key, label=_short(name))
            for axis in has(name) if name in analysis.parameters else ():
                graph.add_node(f"axis {name}:{axis}", kind="axis", label=_lines(f"{name}:{axis}"))
                graph.add_edge(f"axis {name}:{axis}", key, label="")
        producer |= {name: key for name in node.outputs if name}
    layers = {key: 2 * n + 1 for n, keys in enumerate(nx.topological_generations(ops)) for key in keys}
    for key in ops:
        if not ops.pred[key] and ops.succ[key]:  # beside what reads it, not at the top
            layers[key] = min(layers[reader] for reader in ops.succ[key]) - 2
    for key, layer in layers.items():
        graph.nodes[key]["layer"] = layer
        for box in graph.predecessors(key):
            if graph.nodes[box]["kind"] == "axis":
                graph.nodes[box]["layer"] = min(graph.nodes[box].get("layer", layer), layer - 1)


def _add_axis(graph: nx.DiGraph[str], axis: AxisCase, alone: bool) -> None:
    start = f"axis {axis.tensor}:{axis.axis}"
    if alone or axis.stays:
        graph.add_node(start, kind="axis", label=_lines(f"{axis.tensor}:{axis.axis}"), layer=0)
    for stay in axis.stays:
        at = start
        for depth, step in enumerate(stay.chain):
            key, after = f"op {step.op}:{step.node}", f"axis {step.tensor}:{step.axis}"
            for name, kind, text, layer in (
                (key, "op", _lines(step.op, step.node), 2 * depth + 1),
                (after, "axis", _lines(f"{step.tensor}:{step.axis}"), 2 * depth + 2),
            ):
                if name not in graph:
                    graph.add_node(name, kind=kind, label=text, layer=layer)
            graph.add_edge(at, key, label="")
            graph.add_edge(key, after, label="")
            at = after
        cause = f"stays {stay.code} {stay.reason}"
        if cause not in graph:
            graph.add_node(cause, kind="stays", label=_lines(stay.code, *_wrapped(stay.reason)))
        deepest = max(graph.nodes[cause].get("layer", 0), graph.nodes[at]["layer"] + 1)
        graph.nodes[cause]["layer"] = deepest
        graph.add_edge(at, cause, label="")
    for group in axis.groups if alone else ():
        graph.add_node(f"group {group}", kind="axis", label=_lines("group", group), layer=1)
        graph.add_edge(start, f"group {group}", label="")


def _add_op(graph: nx.DiGraph[str], analysis: Analysis, op: OpCase) -> None:
    plan = next(p for p in analysis.plans if p.node.key == op.key)
    key = f"op {op.key}"
    graph.add_node(key, kind="op", label=_lines(op.op, op.node), layer=1)
    for names, layer in ((plan.node.inputs, 0), (plan.node.outputs, 2)):
        for name in dict.fromkeys(n for n in names if n):
            rows = analysis.rows.get(name) or ()
            free = [f"{t}: {_groups_on(analysis, r)}" for t, r in enumerate(rows) if r is not None]
            box = f"tensor {name} {layer}"
            graph.add_node(box, kind="axis" if free else "stays", label=_lines(name, *free), layer=layer)
            graph.add_edge(*((box, key) if layer == 0 else (key, box)), label="")


def _groups_on(analysis: Analysis, rows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> str:
    return ", ".join(analysis.groups[g].id for g in np.unique(analysis.group_of[rows]) if g >= 0)


# -- text ----------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """Names come from files: no control character, which XML could not hold."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _short(text: str) -> str:
    text = _plain(text)
    return text if len(text) <= LONGEST else f"…{text[-LONGEST + 1 :]}"


def _lines(*texts: str) -> str:
    return "\n".join(_short(text) for text in texts if text)


def _wrapped(text: str) -> Iterable[str]:
    """Lines of at most `LONGEST` letters, broken between words; eight of them."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LONGEST:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines[:8]


# -- DOT -----------------------------------------------------------------------------------------


def dot(graph: nx.DiGraph[str]) -> str:
    """A DOT document; names and labels are quoted."""
    shapes = {"op": "box, style=rounded", "axis": "box", "stays": "note"}
    lines = ["digraph {", "  node [fontname=sans, fontsize=10];", "  edge [fontname=sans, fontsize=8];"]
    for key, data in graph.nodes(data=True):
        lines.append(f"  {_quoted(key)} [label={_quoted(data['label'])}, shape={shapes[data['kind']]}];")
    for one, other, label in graph.edges(data="label"):
        lines.append(f"  {_quoted(one)} -> {_quoted(other)} [label={_quoted(label)}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    lines = (_plain(line).replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n"))
    return '"' + "\\n".join(lines) + '"'


# -- SVG -----------------------------------------------------------------------------------------


def svg(graph: nx.DiGraph[str]) -> str:
    """A drawing in layers from top to bottom; long edges go round the boxes between."""
    routes, layers = _layered(graph)
    sizes = {
        key: (
            LETTER * max((len(t) for t in data.get("label", "").split("\n")), default=0) + 14,
            LINE * (data["label"].count("\n") + 1) + 8,
        )
        if "kind" in data
        else (8.0, 0.0)
        for key, data in layers.nodes(data=True)
    }
    rows = _ordered(layers)
    width = max((sum(sizes[k][0] + GAP for k in row) for row in rows), default=0) + GAP
    at: dict[str, tuple[float, float]] = {}
    y = float(GAP)
    for row in rows:
        height = max((sizes[k][1] for k in row), default=0)
        x = (width - sum(sizes[k][0] + GAP for k in row) + GAP) / 2
        for key in row:
            at[key] = (x + sizes[key][0] / 2, y + height / 2)
            x += sizes[key][0] + GAP
        y += height + RISE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{y:.0f}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="#ffffff"/><defs><marker id="end" viewBox="0 0 8 8" '
        'refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#667"/>'
        "</marker></defs>"
    ]
    for route in routes:
        points = [at[key] for key in route]
        points[0] = (points[0][0], points[0][1] + sizes[route[0]][1] / 2)
        points[-1] = (points[-1][0], points[-1][1] - sizes[route[-1]][1] / 2)
        label = graph.edges[route[0], route[-1]]["label"]
        parts.append(
            f'<path d="{_curve(points)}" fill="none" stroke="#667" marker-end="url(#end)">'
            f"<title>{escape(label)}</title></path>"
        )
    for key, data in graph.nodes(data=True):
        parts.append(_box(key, data["label"], data["kind"], at[key], sizes[key]))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(key: str, label: str, kind: str, at: tuple[float, float], size: tuple[float, float]) -> str:
    (x, y), (width, height), lines = at, size, label.split("\n")
    first = y - LINE * (len(lines) - 1) / 2 + 4
    rows = "".join(
        f'<text x="{x:.1f}" y="{first + LINE * i:.1f}" text-anchor="middle"{_bold(kind, i)}>{escape(t)}</text>'
        for i, t in enumerate(lines)
    )
    title, kind_is_op = escape(_plain(key.partition(" ")[2])), kind == "op"
    corner = f'x="{x - width / 2:.1f}" y="{y - height / 2:.1f}"'
    shape = f'width="{width:.1f}" height="{height:.1f}" rx="{8 * kind_is_op}" fill="{COLOURS[kind]}"'
    return f'<g><title>{title}</title><rect {corner} {shape} stroke="#667"/>{rows}</g>'


def _bold(kind: str, row: int) -> str:
    return ' font-weight="bold"' if kind != "axis" and not row else ""


def _curve(points: list[tuple[float, float]]) -> str:
    """Through all points, upright at each."""
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (u, v) in pairwise(points):
        path += f" C{x:.1f} {(y + v) / 2:.1f} {u:.1f} {(y + v) / 2:.1f} {u:.1f} {v:.1f}"
    return path


def _layered(graph: nx.DiGraph[str]) -> tuple[list[list[str]], nx.DiGraph[str]]:
    """Every edge as a route of nodes in neighbouring layers, and the graph of these, with nodes for long edges."""
    layers: nx.DiGraph[str] = nx.DiGraph()
    layers.add_nodes_from(graph.nodes(data=True))
    routes = []
    for one, other in graph.edges:
        low, high = (graph.nodes[k]["layer"] for k in (one, other))
        between = [f"via {layer} {one} {other}" for layer in range(low + 1, high)]
        layers.add_nodes_from((k, {"layer": low + 1 + i}) for i, k in enumerate(between))
        nx.add_path(layers, [one, *between, other])
        routes.append([one, *between, other])
    return routes, layers


def _ordered(layers: nx.DiGraph[str]) -> list[list[str]]:
    """The nodes of every layer, each near the middle of its neighbours (the barycenter method, Sugiyama 1981)."""
    rows: dict[int, list[str]] = {}
    for key, layer in layers.nodes(data="layer"):
        rows.setdefault(layer, []).append(key)
    found = [rows[layer] for layer in sorted(rows)]
    place = {key: i / len(row) for row in found for i, key in enumerate(row)}
    for sweep in range(8):
        for row in found if sweep % 2 == 0 else reversed(found):
            near = layers.predecessors if sweep % 2 == 0 else layers.successors
            middle = {k: np.mean([place[n] for n in near(k)] or [place[k]]) for k in row}
            row.sort(key=lambda k: float(middle[k]))
            place |= {key: (i + 0.5) / len(row) for i, key in enumerate(row)}
    return found
