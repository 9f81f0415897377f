"""Which old position stands at each new position of an axis, once channels were removed or copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxmorph.axes import Array


@dataclass(frozen=True)
class Taken:
    """``old[q]`` is the old position at the new position q; ``copy[q, j]`` counts the copies of its j-th channel."""

    old: Array
    copy: Array


def take(rows: Array, copies: Array) -> Taken:
    """The positions of an axis after every channel c was copied ``copies[c]`` times (0 removes it).

    The order keeps every ordered product of factors ordered: the copies of a channel follow it at the level
    of the factor it belongs to, which is read off the length of its runs (outer factors have longer runs).

    Args:
        rows: the channels of every position, ``[size, k]``, 0 is always alive.
        copies: ``[channels + 1]`` with ``copies[0] == 1``.

    >>> grid = np.array([[1, 3], [1, 4], [2, 3], [2, 4]])  # (a b) with a = 1, 2 and b = 3, 4
    >>> take(grid, np.array([1, 0, 1, 1, 2])).old.tolist()
    [2, 3, 3]
    >>> take(grid, np.array([1, 2, 1, 1, 1])).old.tolist()
    [0, 1, 0, 1, 2, 3]
    """
    counts = copies[rows]
    total = counts.prod(1)
    old = np.repeat(np.arange(len(rows)), total)
    if counts.max(initial=0) <= 1:
        return Taken(old, np.zeros((len(old), rows.shape[1]), np.int64))
    within = np.arange(len(old)) - np.repeat(np.cumsum(total) - total, total)
    copy = np.zeros((len(old), rows.shape[1]), np.int64)
    for j in range(rows.shape[1] - 1, -1, -1):
        within, copy[:, j] = np.divmod(within, counts[old, j])
    start, length = _runs(rows)
    by_length = np.argsort(-length, 1, kind="stable")
    keys: list[Array] = []
    for t in range(rows.shape[1]):
        column = by_length[old, t]
        keys += [start[old, column], copy[np.arange(len(old)), column]]
    order = np.lexsort((old, *reversed(keys)))
    return Taken(old[order], copy[order])


def count(rows: Array, copies: Array) -> int:
    """The number of new positions."""
    return int(copies[rows].prod(1).sum())


def moved(rows: Array, index: Array, copies: Array) -> Array:
    """The new positions of what `index` picks from an axis: where each copy of each picked position stands.

    >>> moved(np.array([[1], [2], [3]]), np.array([2, 0, 2]), np.array([1, 1, 0, 1])).tolist()
    [1, 0, 1]
    """
    there, wanted = take(rows, copies), take(rows[index], copies)
    most = int(copies.max()) + 1

    def code(old: Array, copy: Array) -> Array:
        for column in copy.T:
            old = old * most + column
        return old

    have = code(there.old, there.copy)
    order = np.argsort(have)
    return np.asarray(order[np.searchsorted(have[order], code(index[wanted.old], wanted.copy))])


def _runs(rows: Array) -> tuple[Array, Array]:
    """Start and length of the run of equal channels that every entry lies in, both ``[size, k]``."""
    n = len(rows)
    fresh = np.ones(rows.shape, bool)
    fresh[1:] = rows[1:] != rows[:-1]
    fresh |= rows == 0
    at = np.arange(n)[:, None]
    start = np.maximum.accumulate(np.where(fresh, at, 0), 0)
    ends = np.ones((n, rows.shape[1]), bool)
    ends[:-1] = fresh[1:]
    end = np.minimum.accumulate(np.where(ends, at, n)[::-1], 0)[::-1]
    return start, np.where(rows == 0, 0, end - start + 1)
