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
from onnxmorph.bounds import NUMBERS, PATTERNS, Bounds
from onnxmorph.display import Record, Sheet, Shown, cell, sheet
from onnxmorph.errors import BoundsError, StructureError
from onnxmorph.files import write_text
from onnxmorph.formats import A_VERSION, refusal, version_of
from onnxmorph.polynomial import Widths
from onnxmorph.positions import take
from onnxmorph.reading import Reader, is_list, is_number, is_text, is_whole, shown
from onnxmorph.words import cost_name, percent, plural

VERSION, MINOR = 1, 0
MOST = 1 << 40  # channels of a group
LARGEST = 1 << 28  # bytes of a file


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


def _malformed(message: str, key: bool) -> StructureError:
    """A key or a value of the document is not as docs/structure.md says."""
    return StructureError(message, code="structure")


def _numbers(of: Reader, key: str, most: int) -> tuple[int, ...]:
    """A list of whole numbers from 0 to `most`."""
    found = of.take(key, "a list of whole numbers", is_list)
    for i, n in enumerate(found):
        if type(n) is not int or not 0 <= n <= most:  # nor a bool
            of.complain(f"{key}[{i}]", f"a whole number from 0 to {most}", n)
    return tuple(found)


def _kept(of: Reader) -> Kept:
    width = of.take("width", "a whole number", is_whole)
    if not 1 <= width <= MOST:
        of.complain("width", f"a whole number from 1 to {MOST}", width)
    return Kept(of.take("id", "a text", is_text), width, tuple(sorted(_numbers(of, "keep", width - 1))))


def _axes(of: Reader) -> dict[int, tuple[int, ...]]:
    """What is kept of the axes of a parameter."""
    wrong = next((axis for axis in of.table if not (axis.isascii() and axis.isdigit()) or len(axis) > 3), None)
    if wrong is not None:
        of.complain(wrong, "the number of an axis as the key", wrong)
    return {int(axis): _numbers(of, axis, MOST) for axis in of.table}


def _bounds(of: Reader) -> Bounds:
    """The boundaries: lists of names, and tables of numbers."""
    given: dict[str, Any] = {name: of.take(name, "a list of names", is_list, ()) for name in PATTERNS}
    for name, patterns in given.items():
        for i, each in enumerate(patterns):
            of.value(f"{name}[{i}]", "a text", is_text(each), each)
    given |= {name: dict(of.inner(name, {}).table) for name in NUMBERS}
    of.finish()  # one that is not known would not be heeded
    try:
        return Bounds(**given)
    except BoundsError as e:
        raise _malformed(f"{of.source}: bounds: {e}", False) from None


@dataclass(frozen=True)
class Kept:
    """One group: its id, its full width in the model, and the channels that live, ascending.

    A channel that is listed twice was copied (an expanded network).
    """

    id: str
    width: int
    keep: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Structure(Shown):
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
    def from_json(text: str, source: str = "structure") -> Structure:
        """Read a document. Only `version`, `model` and `groups` are needed: the rest follows from the model.

        What a later minor version added is left out.

        Raises:
            StructureError: it is no structure, or of another major version; with `source` and the place in it.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as e:
            message = f"{source}: not JSON ({type(e).__name__}: {e}); write a structure with `shrink`"
            raise StructureError(message, code="structure") from None
        if not isinstance(document, dict):
            message = f"{source}: expected a table, found {shown(document)}; write a structure with `shrink`"
            raise StructureError(message, code="structure")
        of = Reader(source, document, "", _malformed)
        major, minor = of.take("version", A_VERSION, version_of)
        of.newer = minor > MINOR
        if major != VERSION:
            raise StructureError(refusal(source, document["version"], VERSION), code="structure-version")
        groups = of.take("groups", "a list of groups", is_list)
        parameters, costs = of.inner("parameters", {}), of.inner("costs", {})
        counts = {when: costs.inner(when) for when in costs.table}
        return Structure(
            of.take("model", "a text", is_text),
            tuple(_kept(of.at(f"groups[{i}]", each)) for i, each in enumerate(groups)),
            {name: _axes(parameters.inner(name)) for name in parameters.table},
            {
                when: {name: each.take(name, "a number that is not negative", is_number) for name in each.table}
                for when, each in counts.items()
            },
            dict(of.inner("provenance", {}).table),
            _bounds(of.inner("bounds", {})),
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the document, whole or not at all. Raises OutputError."""
        write_text(self.to_json(), path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Structure:
        """Read a document from a file. Raises StructureError."""
        try:
            if not Path(path).is_file():  # nor a device, which may have no end
                raise StructureError(f"{path}: there is no such file", code="structure-file")
            if Path(path).stat().st_size > LARGEST:
                message = f"{path}: no structure is larger than {LARGEST:,} bytes; give another file"
                raise StructureError(message, code="structure-file")
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as e:  # ValueError: no UTF-8, or a name that no file can have
            raise StructureError(f"{path}: cannot be read ({e}); check the path", code="structure-file") from None
        return Structure.from_json(text, str(path))
