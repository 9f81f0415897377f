"""What the user wants left alone: channels that stay, widths that are not undercut, multiples that are kept.

Boundaries are reasons for being fixed like any other, given before channels are grouped: prices, searches and
reports follow without knowing them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import networkx as nx
import numpy as np

from onnxmorph.axes import Array, Channels
from onnxmorph.errors import BoundsError
from onnxmorph.graph import Graph, op_graph
from onnxmorph.grouping import Grouping
from onnxmorph.propagate import Reasons
from onnxmorph.reading import shown

PATTERNS = ("keep", "only", "freeze_before", "freeze_after")
NUMBERS = ("min_width", "round_to")
WIDEST = 1 << 40  # what a width may be asked to be


@dataclass(frozen=True)
class Bounds:
    """Boundaries of what may be cut. Patterns are globs (``layer1.*``) or names as they stand.

    ``keep`` and ``only`` name tensors, nodes or groups: their channels all stay, or they are the only ones that
    may go. A node's channels are those of all that it reads and writes. ``freeze_before`` and ``freeze_after``
    name tensors: all that they depend on, or that depends on them, stays. ``min_width`` and ``round_to`` give the
    groups of a tensor, node or group their least width, and a number whose multiples their widths are; of several
    patterns that name a group the last counts. Parameters that are kept or frozen keep their values, too.

    >>> Bounds(keep=["stem.*"], min_width={"*": 4}).document()
    {'keep': ['stem.*'], 'min_width': {'*': 4}}
    """

    keep: Sequence[str] = ()
    only: Sequence[str] = ()
    freeze_before: Sequence[str] = ()
    freeze_after: Sequence[str] = ()
    min_width: Mapping[str, int] = field(default_factory=dict)
    round_to: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in PATTERNS:
            given = getattr(self, name)
            if isinstance(given, str) or not all(isinstance(p, str) for p in given):
                raise BoundsError(f"{name} is a list of names, not {given!r}", code="bounds")
            object.__setattr__(self, name, tuple(given))  # lists and tuples are equal then
        for name in NUMBERS:
            wrong = [n for n in getattr(self, name).values() if type(n) is not int or not 1 <= n <= WIDEST]
            if wrong:
                message = f"{name} is a whole number from 1 to {WIDEST:,} per pattern, not {shown(wrong[0])}"
                raise BoundsError(message, code="bounds")

    @property
    def holding(self) -> tuple[Sequence[str], ...]:
        """The boundaries that decide which channels there are."""
        return (self.keep, self.only, self.freeze_before, self.freeze_after)

    def __bool__(self) -> bool:
        return any((*self.holding, self.min_width, self.round_to))

    def document(self) -> dict[str, Any]:
        """For JSON: what is given, and nothing else."""
        patterns = {name: list(given) for name in PATTERNS if (given := getattr(self, name))}
        return patterns | {name: dict(given) for name in NUMBERS if (given := getattr(self, name))}


def near(name: str, names: Iterable[str]) -> str:
    """The end of a message about a name that nothing has."""
    found = get_close_matches(name, list(dict.fromkeys(names)), n=4, cutoff=0.4)
    return f"near names are {', '.join(map(repr, found))}" if found else "`onnxmorph explain` lists the names"


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The name itself, or the names that a glob matches."""
    names = list(names)
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


@dataclass(frozen=True)
class Names:
    """What a pattern may name. Groups are those without boundaries: id to channels."""

    graph: Graph
    channels: Channels
    labels: Mapping[str, Array]
    groups: Mapping[str, Array]

    @property
    def nodes(self) -> dict[str, tuple[str, ...]]:
        """Node name to the tensors that it reads and writes; what several nodes are called names them all."""
        found: dict[str, tuple[str, ...]] = {}
        for node in self.graph.nodes:
            key = node.name or node.outputs[0]
            found[key] = (*found.get(key, ()), *node.tensors)
        return found

    def find(self, pattern: str, option: str) -> Iterator[tuple[str, tuple[str, ...], Array]]:
        """In words, the tensors and the channels of every match; a pattern without a match is an error."""
        nodes, some = self.nodes, False
        for name in matching(pattern, self.graph.shapes):
            some = True
            yield f"tensor {name!r}", (name,), self.free((name,))
        for name in matching(pattern, nodes):
            some = True
            yield f"node {name!r}", nodes[name], self.free(nodes[name])
        for name in matching(pattern, self.groups):
            some = True
            yield f"group {name!r}", (), self.groups[name]
        if not some:
            rest = near(pattern, (*self.graph.shapes, *nodes, *self.groups))
            message = f"{option} {pattern!r}: no tensor, node or group has that name; {rest}"
            raise BoundsError(message, code="bounds-name")

    def free(self, tensors: Iterable[str]) -> Array:
        """The channels on all axes of these tensors that are not fixed."""
        found = [self.labels[name] for name in tensors if name in self.labels]
        return np.unique(self.channels.resolve(np.concatenate([np.zeros(0, np.int64), *found])[:, None]))

    def flow(self, pattern: str, before: bool) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every tensor that matches, and all tensors of the ops that it depends on, or that depend on it."""
        found = matching(pattern, self.graph.shapes)
        if not found:
            option = "freeze_before" if before else "freeze_after"
            message = f"{option} {pattern!r}: no tensor has that name; {near(pattern, self.graph.shapes)}"
            raise BoundsError(message, code="bounds-name")
        ops = op_graph(self.graph)
        for name in found:
            ends = [n for n in self.graph.nodes if name in (n.outputs if before else (*n.inputs, *n.captured))]
            far = nx.ancestors if before else nx.descendants
            keys = {n.key for n in ends}.union(*(far(ops, n.key) for n in ends if n.key in ops))
            held = (t for n in self.graph.nodes if n.key in keys for t in n.tensors)
            yield name, (name, *dict.fromkeys(held))


def hold(bounds: Bounds, names: Names, reasons: Reasons) -> frozenset[str]:
    """Fix what the boundaries hold; the tensors that are held whole.

    Raises:
        BoundsError: a pattern names nothing.
    """
    whole: set[str] = set()
    for pattern in bounds.keep:
        for words, tensors, ids in names.find(pattern, "keep"):
            names.channels.fix(ids, reasons.add("kept", f"{words} is to be kept", tensors))
            whole.update(tensors)
    for patterns, before in ((bounds.freeze_before, True), (bounds.freeze_after, False)):
        for pattern in patterns:
            for name, tensors in names.flow(pattern, before):
                text = f"all {'before' if before else 'after'} tensor {name!r} is frozen"
                names.channels.fix(names.free(tensors), reasons.add("frozen", text, (name,)))
                whole.update(tensors)
    if bounds.only:
        chosen = np.concatenate([ids for pattern in bounds.only for _, _, ids in names.find(pattern, "only")])
        free = np.concatenate([np.zeros(0, np.int64), *names.groups.values()])
        text = f"only {', '.join(map(repr, bounds.only))} may be cut"
        names.channels.fix(np.setdiff1d(free, chosen), reasons.add("not-chosen", text))
    return frozenset(whole)


def numbers(given: Mapping[str, int], option: str, names: Names, found: Grouping, none: int) -> Array:
    """The number that every group is given, ``[groups]``, and `none` where it is given none.

    Args:
        given: pattern to number.
        option: its name, for errors.
        names: what patterns may name.
        found: the groups.
        none: for groups that no pattern names.
    """
    result = np.full(len(found.widths), none, np.int64)
    for pattern, number in given.items():
        for _, _, ids in names.find(pattern, option):
            named = found.group_of[np.isin(found.roots, ids)]
            result[named[named >= 0]] = number
    return result
