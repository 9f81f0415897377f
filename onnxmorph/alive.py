"""Structures from what the original MorphNet wrote: ``alive_STEP`` files, a JSON object of op name to live channels.

Such a file says how many channels of a convolution live, and not which. Those that matter most are taken.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from onnxmorph.analysis import Analysis, bounded
from onnxmorph.axes import Array
from onnxmorph.bounds import near
from onnxmorph.errors import StructureError
from onnxmorph.graph import Node
from onnxmorph.importance import Scores, scores
from onnxmorph.model import Source
from onnxmorph.structure import Structure

Alive = Mapping[str, int]


def load_alive(path: str | os.PathLike[str]) -> dict[str, int]:
    """Op name to the number of its live output channels, from a file that MorphNet's ``StructureExporter`` wrote.

    Raises:
        StructureError: it cannot be read, or is no such file.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise StructureError(f"{path}: cannot be read as JSON ({e})", code="alive") from None
    if not isinstance(found, dict) or any(type(n) is not int or n < 0 for n in found.values()):
        message = f"{path} is no object of op name to number of live channels; give a file learned_structure/alive_STEP"
        raise StructureError(message, code="alive")
    return found


def from_alive(
    source: Source | Analysis,
    alive: str | os.PathLike[str] | Alive,
    *,
    names: Mapping[str, str] | None = None,
    by: str = "bn",
) -> Structure:
    """The structure that a file of the original MorphNet asks for, in the same network as ONNX.

    An op of the file is what reads the parameter in its scope, or else the node of its name: ``block/conv/Conv2D``
    reads ``block/conv/kernel`` or ``block.conv.weight``. Scopes in front that all ops had in common and that
    MorphNet left out are found, too. Where ops share channels (additions) a channel lives that one of them keeps, so
    that a group may be wider than the file says: ``provenance["wider"]`` lists such ops and their widths. Channels
    that no op of the file has stay, and ops whose channels all have to stay (outputs) are passed over.

    Args:
        source: the model, with the trained weights; or its analysis.
        alive: the file, or op name to the number of live channels.
        names: op name to the node or parameter of the model, where they are called otherwise.
        by: how channels are scored, as in `shrink`; ``bn``: by the scales that MorphNet's Gamma regularizers shrink.

    Raises:
        StructureError: the file cannot be read, an op is not in the model, or has fewer channels there.

    Source: ``morph_net/tools/structure_exporter.py`` of the code of MorphNet (arXiv 1711.06798).
    """
    counts = alive if isinstance(alive, Mapping) else load_alive(alive)
    analysis = bounded(source, None)
    worth, axes = scores(analysis, by), {op: rows for op, rows in _axes(analysis, counts, names or {})}
    named, kept = (np.zeros(analysis.channels + 1, bool) for _ in range(2))
    for op, rows in axes.items():
        named[rows] = True
        kept[_best(rows, counts[op], worth, op)] = True
    copies = np.where(named & ~kept, 0, 1)
    copies[0] = 1
    widths = {op: int(copies[rows].sum()) for op, rows in axes.items()}
    wider = {op: width for op, width in widths.items() if width > counts[op]}
    return Structure.of(analysis, copies, method="alive", by=by, alive=dict(counts), wider=wider)


def _axes(analysis: Analysis, counts: Alive, names: Mapping[str, str]) -> Iterator[tuple[str, Array]]:
    """Every op, and the channel of each position along its output channels (0 stays), ``[size]``."""
    places = _Places(analysis)
    for op in counts:
        output = places.output(names.get(op, op), op)
        axes = [rows for rows in analysis.rows.get(output, ()) if rows is not None]
        if len(axes) > 1 or any((rows[:, 1:] > 0).any() for rows in axes):
            message = f"op {op!r} (tensor {output!r}) has several groups of channels, which one number cannot tell"
            raise StructureError(f"{message}; leave it out of the file", code="alive-count")
        yield op, axes[0][:, 0] if axes else np.zeros(0, np.int64)


def _best(rows: Array, count: int, worth: Scores, op: str) -> Array:
    """The channels that matter most, as many as make up `count` positions."""
    if len(rows) and count > len(rows):
        message = f"op {op!r} has {count} live channels in the file, and {len(rows)} in the model: another network"
        raise StructureError(f"{message}; give the one that the file was made with", code="alive-count")
    channels, positions = np.unique(rows[rows > 0], return_counts=True)
    order = np.argsort(-worth[channels], kind="stable")
    before = np.cumsum(positions[order]) - positions[order] + (rows == 0).sum()
    result: Array = channels[order[before < count]]
    return result


class _Places:
    """Where the ops of a file are in a model."""

    def __init__(self, analysis: Analysis) -> None:
        graph = analysis.graph
        self.nodes = {node.name: node for node in graph.nodes if node.name}
        self.readers: dict[str, list[Node]] = {}
        self.fed = set(graph.inputs)  # what depends on the inputs of the model
        for node in graph.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
            if self.fed.intersection(node.inputs):
                self.fed.update(node.outputs)
        self.ranks = {name: len(p.shape) for name, p in analysis.parameters.items() if name in self.readers}

    def output(self, place: str, op: str) -> str:
        """The tensor that a node writes, or the op that reads a parameter."""
        name = place if place in self.ranks else self._beside(place)
        if name is not None:
            return self._read(name).outputs[0]
        if place in self.nodes:  # after scopes: converters call what transposes a kernel by the name of its op, too
            return self.nodes[place].outputs[0]
        rest = near(place, (*self.nodes, *self.ranks))
        message = f"op {op!r}: no node is called {place!r}, and not one layer has its scope; {rest}"
        raise StructureError(f"{message}. Say which it is: names={{{op!r}: ...}}", code="alive-name")

    def _beside(self, op: str) -> str | None:
        """The parameter of most axes in the scope of an op; None where there is none, or scopes end alike."""
        *scope, _ = _parts(op)
        scopes = {name: _parts(name)[:-1] for name in self.ranks}
        ends = [name for name, own in scopes.items() if scope and own[-len(scope) :] == scope]
        here = [name for name in ends if scopes[name] == scope] or ends
        alike = len({tuple(scopes[name]) for name in here}) > 1
        return None if alike else max(here, key=self.ranks.__getitem__, default=None)

    def _read(self, name: str) -> Node:
        """The op that brings a parameter and what comes from the inputs together; between them it is transposed."""
        found = self.readers[name][0]
        while not self.fed.intersection(found.inputs) and found.outputs[0] in self.readers:
            found = self.readers[found.outputs[0]][0]
        return found


def _parts(name: str) -> list[str]:
    return re.split(r"[/.:]", name)
