"""Which channels live: a versioned JSON document that any program can apply with array indexing alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from onnxmorph.analysis import Analysis, analyze_graph
from onnxmorph.axes import Array
from onnxmorph.bounds import Bounds
from onnxmorph.display import Record, Sheet, as_html, as_text, cell, sheet
from onnxmorph.errors import StructureError
from onnxmorph.model import write_text
from onnxmorph.polynomial import Widths
from onnxmorph.positions import take
from onnxmorph.words import cost_name, percent, plural

VERSION = 1


def _lines(table: Mapping[str, Any], depth: int) -> str:
    """The entries of a JSON object, nested ones a line each to the given depth: a diff can be read."""
    lines = []
    for key, value in table.items():
        text = json.dumps(value)
        if depth > 1 and isinstance(value, dict) and value:
            text = f"{{\n{_lines(value, depth - 1)}\n}}"
        elif depth > 1 and isinstance(value, (list, tuple)) and value:
            text = "[\n" + ",\n".join(f"  {json.dumps(v)}" for v in value) + "\n]"
        lines.append(f"{'  ' * (3 - depth)}{json.dumps(str(key))}: {text}")
    return ",\n".join(lines)


def _whole(number: object) -> int:
    if type(number) is not int:  # nor a bool
        raise TypeError(f"{number!r} is no integer")
    return number


@dataclass(frozen=True)
class Kept:
    """One group: its id, its full width in the model, and the channels that live, ascending.

    A channel that is listed twice was copied (an expanded network).
    """

    id: str
    width: int
    keep: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Structure:
    """The live channels of a model.

    ``model`` is the fingerprint of the model's graph; weights do not enter it. ``parameters[name][axis]`` are
    the kept indices of every axis that has channels: ``numpy.take`` along each of them gives the new
    parameter; an axis that is not listed stays whole. ``costs`` holds ``before`` and ``after``; ``provenance``
    says how the structure was found. The groups are those that the model has under ``bounds``.
    """

    model: str
    groups: tuple[Kept, ...]
    parameters: Mapping[str, Mapping[int, tuple[int, ...]]]
    costs: Mapping[str, Mapping[str, float]]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=Bounds)

    def __repr__(self) -> str:
        return f"<Structure of {self._heading}>"

    def __str__(self) -> str:
        return as_text(self._heading, self._sheets)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return as_html(self._heading, self._sheets)

    def to_records(self, of: Literal["groups", "parameters"] = "groups") -> list[Record]:
        """Rows with the same keys, whose values are texts and numbers: ``pandas.DataFrame`` takes them as they are.

        Args:
            of: ``groups`` (full width, how many channels are kept, their share) or ``parameters`` (every axis that has
                channels, how long it becomes).

        Raises:
            ValueError: `of` is neither.
        """
        if of == "groups":
            sizes = [(g.id, g.width, len(g.keep)) for g in self.groups]
            return [
                {"group": id, "width": full, "kept": kept, "share": kept / max(full, 1)} for id, full, kept in sizes
            ]
        if of == "parameters":
            axes = [(name, axis, live) for name, of_axes in self.parameters.items() for axis, live in of_axes.items()]
            return [{"tensor": name, "axis": axis, "kept": len(live)} for name, axis, live in axes]
        raise ValueError(f"there are no records of {of!r}; there are groups and parameters")

    @property
    def _heading(self) -> str:
        full, kept = sum(g.width for g in self.groups), sum(len(g.keep) for g in self.groups)
        method = self.provenance.get("method")
        how = "" if method is None else f", {method}"
        return f"{self.model}: {kept:,} of {plural(full, 'channel')} in {plural(len(self.groups), 'group')}{how}"

    @property
    def _sheets(self) -> list[Sheet]:
        before, after = (self.costs.get(when, {}) for when in ("before", "after"))
        both = [n for n in before if n in after]
        values = [(cell(n, before[n]), cell(n, after[n]), percent(after[n], before[n])) for n in both]
        columns = ("cost", "before", "after", "of before")
        costs = [dict(zip(columns, (cost_name(n), *row), strict=True)) for n, row in zip(both, values, strict=True)]
        groups = sorted(self.to_records(), key=lambda row: -abs(row["share"] - 1))
        found = [
            sheet("Costs", costs, columns),
            sheet("Widths, most changed first", groups, ("group", "width", "kept", "share")),
        ]
        return [each for each in found if each.rows]

    @staticmethod
    def of(analysis: Analysis, copies: Array, /, **provenance: Any) -> Structure:
        """From the number of copies of every channel.

        Args:
            analysis: of the model that the structure is for.
            copies: ``[channels + 1]``; 0 removes a channel, 1 keeps it, more copies it; ``copies[0]`` is 1.
            provenance: anything JSON: method, seed, budget.
        """
        groups = []
        for g in analysis.groups:
            own = copies[g.start + 1 : g.start + 1 + g.width]
            groups.append(Kept(g.id, g.width, tuple(np.repeat(np.arange(g.width), own).tolist())))
        parameters: dict[str, dict[int, tuple[int, ...]]] = {}
        for name in analysis.parameters:
            parameters[name] = {}
            for axis, rows in enumerate(analysis.rows[name]):
                if rows is not None:
                    parameters[name][axis] = tuple(take(rows, copies).old.tolist())
        widths = np.array([len(k.keep) for k in groups], np.int64)
        costs = {
            "before": analysis.count(),
            "after": analysis.count(widths),
        }
        return Structure(analysis.graph.fingerprint, tuple(groups), parameters, costs, provenance, analysis.bounds)

    @property
    def widths(self) -> Widths:
        """The new width of every group, ``[groups]``."""
        return np.array([len(g.keep) for g in self.groups], np.int64)

    @property
    def locked(self) -> frozenset[str]:
        """The groups that the module which was trained does not follow, as ``provenance`` says."""
        found = self.provenance.get("locked")
        return frozenset(map(str, found)) if isinstance(found, list | tuple) else frozenset()

    def copies(self, analysis: Analysis) -> Array:
        """How often every channel of `analysis` stands in the new network, ``[channels + 1]``.

        The analysis may be under other boundaries than the structure, if the structure respects them.

        Raises:
            StructureError: the structure is for another model, or changes what the analysis holds.
        """
        if self.model != analysis.graph.fingerprint:
            message = (
                f"the structure is for another model (fingerprint {self.model}, this model has "
                f"{analysis.graph.fingerprint}); give the model it was made from"
            )
            raise StructureError(message, code="structure-model")
        if analysis.bounds.holding != self.bounds.holding:
            return self._translated(analysis)
        of = {g.id: g for g in self.groups}
        if len(of) != len(self.groups) or {(g.id, g.width) for g in analysis.groups} != {
            (g.id, g.width) for g in self.groups
        }:
            raise StructureError("the structure's groups are not those of the model", code="structure-groups")
        copies = np.ones(analysis.channels + 1, np.int64)
        for group in analysis.groups:
            kept = np.bincount(of[group.id].keep, minlength=group.width)
            copies[group.start + 1 : group.start + 1 + group.width] = kept
        return copies

    def _translated(self, analysis: Analysis) -> Array:
        """The copies in an analysis under other boundaries: the channels are the same, grouped differently."""
        own = analyze_graph(analysis.graph, self.bounds)
        given, copies = self.copies(own), np.ones(analysis.channels + 1, np.int64)
        here = np.isin(own.trace.roots, analysis.trace.roots)
        changed = np.flatnonzero(~here & (given != 1))
        if len(changed):
            group = own.groups[own.group_of[changed[0]]].id
            message = f"the structure changes group {group!r}, which the boundaries hold; choose channels under them"
            raise StructureError(message, code="structure-bounds")
        order = np.argsort(analysis.trace.roots)
        copies[order[np.searchsorted(analysis.trace.roots[order], own.trace.roots[here])]] = given[here]
        return copies

    def to_json(self) -> str:
        """The document; `from_json` reads it back."""
        document = {"version": VERSION, **asdict(self), "bounds": self.bounds.document()}
        return f"{{\n{_lines(document, 2)}\n}}\n"

    @staticmethod
    def from_json(text: str) -> Structure:
        """Read a document. Only `version`, `model` and `groups` are needed: the rest follows from the model.

        Raises:
            StructureError: it is no structure, or of a newer version.
        """
        try:
            document = json.loads(text)
            version = document["version"]
            if version != VERSION:
                message = f"structure version {version} is not supported (this onnxmorph reads version {VERSION})"
                raise StructureError(message, code="structure-version")
            groups = tuple(
                Kept(str(g["id"]), _whole(g["width"]), tuple(sorted(map(_whole, g["keep"]))))
                for g in document["groups"]
            )
            for g in groups:
                if g.keep and not 0 <= g.keep[0] <= g.keep[-1] < g.width:
                    raise StructureError(f"group {g.id!r} keeps indices outside 0 … {g.width - 1}", code="structure")
            parameters = {
                name: {int(axis): tuple(map(_whole, kept)) for axis, kept in axes.items()}
                for name, axes in document.get("parameters", {}).items()
            }
            return Structure(
                document["model"],
                groups,
                parameters,
                dict(document.get("costs", {})),
                dict(document.get("provenance", {})),
                Bounds(**document.get("bounds", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
            raise StructureError(
                f"not a structure ({type(e).__name__}: {e}); write one with `shrink`", code="structure"
            ) from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the document, whole or not at all. Raises OutputError."""
        write_text(self.to_json(), path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Structure:
        """Read a document from a file. Raises StructureError."""
        if not Path(path).is_file():  # nor a device, which may have no end
            raise StructureError(f"{path}: there is no such file", code="structure-file")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise StructureError(f"{path}: cannot be read ({e})", code="structure-file") from None
        return Structure.from_json(text)
