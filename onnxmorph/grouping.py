"""From tied channels to channel groups: channels with the same signature are interchangeable.

The signature of a channel is the multiset of places (array, column) where it stands, over all parameters and
all factors of all ops. Two channels of a group therefore cost the same and are cut the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxmorph.axes import Array, Channels, row_codes


@dataclass(frozen=True)
class Grouping:
    """Channels renumbered so that group i owns ``starts[i] + 1 … starts[i] + widths[i]``; 0 is always alive.

    ``arrays`` are the given label arrays in the new numbers, normalised; ``group_of`` is ``[channels + 1]``
    with -1 at 0; ``roots`` are the channels' numbers before, ``[channels + 1]``.
    """

    widths: Array
    starts: Array
    group_of: Array
    roots: Array
    arrays: dict[int, Array]


def group(
    channels: Channels, parameters: Sequence[Array], factors: Sequence[Array], irregular: int, bare: int
) -> Grouping:
    """Group the free channels.

    Args:
        channels: the union-find after all ties.
        parameters: label arrays of the parameters' axes.
        factors: label arrays of the factors of the ops, each array object once.
        irregular: the reason for positions that are no product of groups.
        bare: the reason for channels that no parameter has.
    """
    given = {id(a): a for a in (*parameters, *factors)}
    while True:
        resolved, places = _settle(channels, given)
        top = 1 + max((int(a.max(initial=0)) for a, _ in places), default=0)
        signature = np.zeros(top, np.uint64)
        start = 0
        for rows, count in places:
            numbers = np.arange(start, start := start + count, dtype=np.uint64) * np.uint64(16)
            for j, column in enumerate(rows.T):
                np.add.at(signature, column, _mix(numbers + np.uint64(j + 1)).sum())
        owned = np.zeros(top, bool)
        for a in parameters:
            owned[resolved[id(a)]] = True
        roots = np.flatnonzero(signature)
        roots = roots[roots > 0]
        lost = roots[~owned[roots]]
        if len(lost):
            channels.fix(lost, bare)
            continue
        _, first, inverse, widths = np.unique(
            signature[roots], return_index=True, return_inverse=True, return_counts=True
        )
        order = np.argsort(first)  # groups in order of appearance
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        group_of_root = rank[inverse]
        number = np.zeros(top, np.int64)
        by_group = np.argsort(group_of_root, kind="stable")
        number[roots[by_group]] = np.arange(1, len(roots) + 1)
        group_of = np.concatenate([[-1], group_of_root[by_group]]).astype(np.int64)
        widths = widths[order].astype(np.int64)
        broken = [a for a, _ in places if a.shape[1] > 1 and not is_regular(group_of[number[a]], number[a], widths)]
        if not broken:
            renumbered = {id(a): number[a] for a, _ in places}
            arrays = {key: renumbered[id(a)] for key, a in resolved.items()}
            before = np.append(0, roots[by_group])
            return Grouping(widths, np.cumsum(widths) - widths, group_of, before, arrays)
        for a in broken:
            several = (a > 0).sum(1) > 1
            channels.fix(a[several] if several.any() else a, irregular)


def _settle(channels: Channels, given: Mapping[int, Array]) -> tuple[dict[int, Array], list[tuple[Array, int]]]:
    """Every array resolved, and the distinct results with how often each stands somewhere.

    Tied axes have the same labels in the end, so there are few distinct ones.
    """
    first: dict[tuple[int, bytes], int] = {}
    alike = {key: first.setdefault((a.shape[1], a.tobytes()), key) for key, a in given.items()}
    distinct: dict[tuple[int, bytes], Array] = {}
    resolved = {
        key: distinct.setdefault((rows.shape[1], rows.tobytes()), rows)
        for key, rows in zip(first.values(), channels.resolve_all([given[key] for key in first.values()]), strict=True)
    }
    result = {key: resolved[other] for key, other in alike.items()}
    times = Counter(map(id, result.values()))
    return result, [(rows, times[id(rows)]) for rows in distinct.values()]


def is_regular(groups: Array, rows: Array, widths: Array) -> bool:
    """Whether the positions come as full products of different groups, each row equally often.

    Args:
        groups: the group of every channel of every position, -1 for channel 0.
        rows: the channels themselves.
        widths: of the groups.
    """
    groups, rows = np.sort(groups, 1), np.sort(rows, 1)
    codes = row_codes(groups)
    for kind in codes[:1] if (codes == codes[:1]).all() else np.unique(codes):
        same = codes == kind
        counts = np.unique(row_codes(rows[same]), return_counts=True)[1]
        of = groups[same][0]
        if len(counts) != np.prod(widths[of[of >= 0]]) or counts.min() != counts.max():
            return False
    return True


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Well-spread 64-bit numbers (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        x = x * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
