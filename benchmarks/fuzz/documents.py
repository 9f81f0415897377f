"""Mutations of JSON and TOML: of any value in the tree, and of the text."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from benchmarks.fuzz.parts import FLOATS, NUMBERS, TEXTS, Rng, pick

Place = tuple[Any, Any]  # a table or list, and the key or index in it
VALUES = (
    None, True, False, [], {}, "", "x", 1.5, -1, 0, 1, [[]], {"": None}, [0, 0], 10**400, *NUMBERS, *FLOATS, *TEXTS,
)  # fmt: skip


def places(tree: Any) -> Iterator[Place]:
    """Every value in a tree, by where it stands."""
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in entries:
        yield tree, key
        yield from places(value)


def altered(rng: Rng, document: Any, *, plain: bool = False) -> Any:
    """The document with some values replaced, dropped, doubled or exchanged; ``plain``: as TOML can have it."""
    tree = copy.deepcopy(document)
    values = [v for v in VALUES if not plain or not (v is None or v == {"": None} or v == 10**400)]
    for _ in range(int(rng.integers(1, 4))):
        found = list(places(tree))
        if not found:
            return pick(rng, values)
        within, key = pick(rng, found)
        choice = rng.random()
        if choice < 0.45:
            within[key] = copy.deepcopy(pick(rng, values))
        elif choice < 0.6:
            del within[key]
        elif choice < 0.75:
            other, place = pick(rng, found)
            within[key] = copy.deepcopy(other[place])
        elif choice < 0.85 and isinstance(within, list):
            within.insert(key, copy.deepcopy(within[key]))
        elif choice < 0.9 and isinstance(within, dict):
            within[pick(rng, TEXTS)] = within.pop(key)
        elif choice < 0.95:
            within[key] = [within[key]]
        else:
            deep: Any = 0
            for _ in range(int(pick(rng, (2, 30, 200)))):
                deep = [deep]
            within[key] = deep
    return tree
