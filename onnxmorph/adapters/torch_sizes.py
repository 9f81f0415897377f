"""Sizes that stand in a module's attributes: found by trying, recorded as sums of products of widths.

``self.heads = 4`` is read by Python code that no export shows. What is known is that the exported graph has an axis
of that size, and how its size follows from the widths of groups; a probe says whether the attribute is that size.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from onnxmorph.analysis import Analysis
from onnxmorph.errors import StructureError

Size = tuple[tuple[int, tuple[str, ...]], ...]  # coefficient and groups of every product in a sum
Sizes = dict[str, Size]  # the path of an attribute to its size: "blocks.0.heads", "split.sizes.1"
Place = tuple[str, str]  # a module's name, and the path of an attribute in it
Test = Callable[[Sizes, frozenset[str]], bool]

LISTS = (list, tuple, torch.Size)
AT_ONCE = 2  # kinds of attributes that are changed together to free a group
MOST = 100  # trials for one group
CLOSEST = 4  # sizes that one attribute is tried as


def set_sizes(module: nn.Module, sizes: Mapping[str, Any], widths: Mapping[str, int]) -> None:
    """Bring attributes of a module up to date, in place; lists and configs are replaced, for others may hold them.

    Args:
        module: whose attributes, or those of its parts.
        sizes: as `Sizes`, also as JSON has them.
        widths: group id to width.

    Raises:
        StructureError: there is no such attribute, or the width of a group is not given.
    """
    for path, size in sizes.items():
        try:
            missing = next((g for _, groups in size for g in groups if g not in widths), None)
            if missing is None:
                _put(module, path.split("."), sum(times * prod(widths[g] for g in groups) for times, groups in size))
        except (AttributeError, LookupError, TypeError, ValueError):
            message = f"the structure has a size for {path!r}, which the module has not"
            raise StructureError(f"{message}; give the module it was made from", code="structure-module") from None
        if missing is not None:
            message = f"{path!r} in the module follows group {missing!r}, which the structure's boundaries hold"
            raise StructureError(f"{message}; give Morph these boundaries", code="structure-groups")


def _put(owner: Any, path: Sequence[str], value: int) -> Any:
    """The owner with the value at the end of the path; a copy of it where it is no module.

    Raises TypeError where there is no whole number: paths come from files, and nothing else is theirs to change.
    """
    first, *rest = path
    listed = isinstance(owner, (list, tuple))
    before = owner[int(first)] if listed else getattr(owner, first)
    if not rest and (isinstance(before, bool) or not isinstance(before, int)):
        raise TypeError(f"{first} is no whole number")
    if listed:
        items = list(owner)
        items[int(first)] = value
        return type(owner)(items)
    if not isinstance(owner, nn.Module):
        owner = copy.copy(owner)
    setattr(owner, first, _put(before, rest, value) if rest else value)
    return owner


def read_sizes(module: nn.Module, run: Callable[[nn.Module], Any], known: tuple[type, ...]) -> dict[Place, int]:
    """The whole numbers that a forward reads from attributes, and from the lists, tuples and configs there.

    Args:
        module: is copied.
        run: calls the copy.
        known: kinds of modules whose attributes are left out.
    """
    watched, found = copy.deepcopy(module), dict[Place, int]()
    for name, owner in watched.named_modules():
        if isinstance(owner, known):
            continue
        for attribute, value in list(vars(owner).items()):
            if isinstance(getattr(value, "__dict__", None), dict) and not (
                callable(value) or isinstance(value, Tensor)
            ):
                vars(owner)[attribute] = own = copy.copy(value)  # modules share it: this one's reads are told apart
                _watch(own, name, f"{attribute}.", found)
        _watch(owner, name, "", found)
    run(watched)
    return found


def _watch(owner: object, name: str, prefix: str, found: dict[Place, int]) -> None:
    kind = type(owner)

    def note(attribute: str, value: Any) -> None:
        if type(value) is int:
            found[name, prefix + attribute] = value
        elif type(value) in LISTS and all(type(n) is int for n in value):
            found.update(((name, f"{prefix}{attribute}.{k}"), n) for k, n in enumerate(value))

    def get(self: object, attribute: str) -> Any:
        value = kind.__getattribute__(self, attribute)
        if attribute in object.__getattribute__(self, "__dict__"):
            note(attribute, value)
        return value

    own = {"__getattribute__": get, "__module__": kind.__module__}
    try:
        owner.__class__ = type(kind)(kind.__name__, (kind,), own)  # type: ignore[misc]  # whatever kind of class it is
    except TypeError:  # one that cannot be watched: all its numbers may be read
        for attribute, value in vars(owner).items():
            note(attribute, value)


@dataclass(frozen=True, eq=False)
class Unit:
    """An attribute of all modules of one class that are alike; each may be one of equally many sizes."""

    choices: Mapping[str, tuple[Size, ...]]

    @property
    def groups(self) -> frozenset[str]:
        """All groups that it may follow."""
        return frozenset().union(*(_groups(size) for sizes in self.choices.values() for size in sizes))

    def chosen(self, choice: int | None) -> Sizes:
        """The sizes by one choice; None leaves them as they are."""
        return {} if choice is None else {path: sizes[choice] for path, sizes in self.choices.items()}


def without(size: Size, widths: Mapping[str, int]) -> Size:
    """The same size without groups that keep their width.

    >>> without(((3, ("heads", "dims")),), {"dims": 8})
    ((24, ('heads',)),)
    """
    found: dict[tuple[str, ...], int] = {}
    for times, of in size:
        left = tuple(g for g in of if g not in widths)
        found[left] = found.get(left, 0) + times * prod(widths.get(g, 1) for g in of)
    return tuple((times, of) for of, times in found.items())


def _groups(size: Size) -> frozenset[str]:
    return frozenset(g for _, groups in size for g in groups)


def units(analysis: Analysis, module: nn.Module, found: Mapping[Place, int], locked: frozenset[str]) -> list[Unit]:
    """The attributes that may be the size of an axis in the graph that some locked group is part of.

    Of several such sizes those come first whose groups have parameters near the module.
    """
    members = {g.id: g.members for g in analysis.groups}
    by_value: dict[int, list[Size]] = {}
    for value, size in dict.fromkeys(_axes(analysis)):
        if locked & _groups(size):
            by_value.setdefault(value, []).append(size)

    def seen(name: str, size: Size) -> object:
        """A size as it looks from a module: the same for modules that are built alike."""
        start = f"{name}." if name else ""
        own = {
            g: [(m.tensor[len(start) :], m.axis) for m in members[g] if m.tensor.startswith(start)]
            for g in _groups(size)
        }
        return [(times, sorted(own[g] for g in of)) for times, of in size]

    def depth(name: str, size: Size) -> int:
        """How deep the module lies that this module is in, or is, and that has parameters of all these groups."""
        while name and not all(any(m.tensor.startswith(f"{name}.") for m in members[g]) for g in _groups(size)):
            name = name.rpartition(".")[0]
        return len(name)

    alike: dict[str, dict[str, tuple[Size, ...]]] = {}
    for (name, attribute), number in found.items():
        sizes = sorted(by_value.get(number, ()), key=lambda size: -depth(name, size))[:CLOSEST]
        if sizes:
            kind = type(module.get_submodule(name)).__qualname__
            key = repr((kind, attribute, [seen(name, size) for size in sizes]))
            alike.setdefault(key, {})[f"{name}.{attribute}".lstrip(".")] = tuple(sizes)
    return [Unit(choices) for choices in alike.values()]


def _axes(analysis: Analysis) -> Iterator[tuple[int, Size]]:
    """The full size of every axis that can be cut, and how it follows from the widths."""
    for rows in analysis.rows.values():
        for each in rows:
            if each is not None:
                terms = sorted(analysis.sizes(each, len(each)).items())
                yield len(each), tuple((int(times), tuple(analysis.groups[g].id for g in of)) for of, times in terms)


def search(candidates: Sequence[Unit], locked: Sequence[str], works: Test) -> Sizes:
    """Sizes of attributes by which groups that were locked can be cut.

    Each group is tried alone: first with all that may be a size of it, then with one or two kinds of attributes
    changed. What no freed group needs is left as it is.

    Args:
        candidates: by `units`.
        locked: group ids.
        works: whether a network with these sizes can lose channels of these groups.
    """
    choice: list[int | None] = [0] * len(candidates)
    free: set[str] = set()
    hopeless = set()

    def sizes(of: Sequence[int | None]) -> Sizes:
        chosen = (unit.chosen(k) for unit, k in zip(candidates, of, strict=True))
        return {path: size for each in chosen for path, size in each.items()}

    for group in locked:
        near = [n for n, unit in enumerate(candidates) if group in unit.groups]
        kind = (re.sub(r"\d+", "#", group), tuple(near))  # the same layer further up: what failed there fails here
        if not near or kind in hopeless:
            continue
        also = {g for n in near for g in candidates[n].groups} & free
        for trial in _nearby(candidates, choice, near):
            if works(sizes(trial), frozenset({group})) and (not also or works(sizes(trial), frozenset({group, *also}))):
                choice = trial
                free.add(group)
                break
        else:
            hopeless.add(kind)
    return {path: size for path, size in sizes(choice).items() if _groups(size) & free}


def _nearby(candidates: Sequence[Unit], now: list[int | None], near: Sequence[int]) -> Iterator[list[int | None]]:
    """The choices as they are, then with one of the units changed, then two; no more than `MOST`."""
    left = MOST
    for changed in range(AT_ONCE + 1):
        for places in combinations(near, changed):
            open_ = ([*range(len(next(iter(candidates[n].choices.values())))), None] for n in places)
            for values in product(*open_):
                if any(now[n] == k for n, k in zip(places, values, strict=True)):
                    continue
                trial = list(now)
                for n, k in zip(places, values, strict=True):
                    trial[n] = k
                yield trial
                left -= 1
                if not left:
                    return
