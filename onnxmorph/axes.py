"""Channels, and the labels that say which channels each position of an axis depends on.

The one sentence of the algebra: *a position is alive exactly when all its channels are alive.*

An axis of `size` positions is labelled with an integer array ``[size, k]``; row *p* lists the channels of
position *p*, and 0 stands for "always alive". An axis that cannot change at all carries the number of the
reason instead of an array. Ops never see channels one by one: everything here works on whole arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Labels = Array | int  # an array [size, k], or the reason number of a fixed axis
LONGEST = 1 << 24  # positions of an axis; a longer one is fixed, for its labels would fill the memory
LONG = 1 << 16  # of an axis made of others, from which on it counts
MOST = 1 << 26  # channels of a model, and positions of its long axes: a small file can name any number of them


class Channels:
    """Union-find over channels, with definitions ``c := a and b`` and reasons for being fixed.

    Channel 0 is always alive. A channel is *free* until it is united with another, defined as the
    conjunction of two others, or fixed for a reason. Ties of single channels, and fixes, wait until somebody
    asks for a result, and are then carried out together: one pass over long arrays instead of many over short ones.
    """

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.int64)
        self._left = np.zeros(1, np.int64)
        self._right = np.zeros(1, np.int64)
        self._why = np.zeros(1, np.int64)
        self._count = 1
        self._held = 0
        self._fixes: list[tuple[Array, int]] = []
        self._ties: list[tuple[Array, Array, int]] = []

    def admits(self, n: int, weight: int = 1) -> bool:
        """Whether labels of so many more positions are still held; if so, they are from now on.

        What a file has data for counts once, what an op makes of nothing counts more.
        """
        if n > LONGEST or self._held + n * weight > MOST:
            return False
        self._held += n * weight
        return True

    def fresh(self, n: int) -> Array:
        """N new free channels, shape ``[n]``."""
        start, self._count = self._count, self._count + n
        return np.arange(start, self._count)

    def _grow(self) -> None:
        """Make room for the channels handed out since."""
        before = len(self._parent)
        if self._count > before:
            room = max(self._count, 2 * before)
            for name in ("_left", "_right", "_why"):
                grown = np.zeros(room, np.int64)
                grown[:before] = getattr(self, name)
                setattr(self, name, grown)
            self._parent = np.concatenate([self._parent, np.arange(before, room)])

    def find(self, ids: Array) -> Array:
        """The representative of each channel; same shape."""
        self._settle()
        return self._find(ids)

    def _find(self, ids: Array) -> Array:
        root = self._parent[ids]
        while True:
            up = self._parent[root]
            if (up == root).all():
                break
            root = up
        self._parent[ids] = root
        return root

    def why(self, ids: Array) -> Array:
        """The reason number of each channel, 0 where it is free; same shape."""
        self._settle()
        roots = self._find(ids)
        found = self._why[roots]
        while (open_ := (found == 0) & (self._left[roots] > 0)).any():
            left, right = self._find(self._left[roots]), self._find(self._right[roots])
            roots = np.where(open_, np.where(self._why[left] > 0, left, right), roots)
            found = self._why[roots]
        return found

    def fix(self, ids: Array, reason: int) -> None:
        """Keep these channels (and all that they are made of) for ever."""
        self._fixes.append((ids.reshape(-1), reason))

    def _settle(self) -> None:
        """Carry out what waits."""
        while self._fixes or self._ties:
            self._grow()
            if self._fixes:
                fixes, self._fixes = self._fixes[::-1], []  # where several fix one channel, the first is its reason
                ids, why = zip(*fixes, strict=True)
                self._hold(np.concatenate(ids), _each(why, ids))
            ties, self._ties = self._ties, []
            if not ties:
                continue
            a, b, why = zip(*ties, strict=True)
            x, y, reasons = np.concatenate(a), np.concatenate(b), _each(why, a)
            defined = (self._left[self._find(x)] > 0) | (self._left[self._find(y)] > 0)
            self._unite(x[~defined], y[~defined], reasons[~defined])
            owner = _each(range(len(a)), a)
            for i in np.unique(owner[defined]):
                rows = defined & (owner == i)
                self._tie(x[rows, None], y[rows, None], why[i])
        self._grow()

    def _hold(self, ids: Array, reasons: Array) -> None:
        roots = self._find(ids)
        while (new := (roots > 0) & (self._why[roots] == 0)).any():
            roots, reasons = roots[new], reasons[new]
            self._why[roots] = reasons
            roots = self._find(np.concatenate([self._left[roots], self._right[roots]]))
            reasons = np.tile(reasons, 2)

    def _unite(self, a: Array, b: Array, reasons: Array) -> None:
        """Make ``a[i]`` and ``b[i]`` one channel, for every i; a zero fixes its partner for ``reasons[i]``."""
        while len(a):
            a, b = self._find(a), self._find(b)
            apart = a != b
            low, high, reasons = np.minimum(a, b)[apart], np.maximum(a, b)[apart], reasons[apart]
            for one, other in ((low, high), (high, low)):
                held = self._why[one] > 0
                if held.any():
                    self._hold(other[held], self._why[one[held]])
            self._hold(high[low == 0], reasons[low == 0])
            fixed_low, fixed_high = (low == 0) | (self._why[low] > 0), self._why[high] > 0
            left = ~(fixed_low & fixed_high)  # a pair with one fixed side comes round again, which fixes the other
            free = ~(fixed_low | fixed_high)
            # resolve() hands out no defined channel; one defined meanwhile is settled by fixing it
            defined = free & ((self._left[low] != 0) | (self._left[high] != 0))
            self._hold(np.concatenate([low[defined], high[defined]]), np.tile(reasons[defined], 2))
            free &= ~defined
            np.minimum.at(self._parent, high[free], low[free])
            a, b, reasons = low[left], high[left], reasons[left]

    def define(self, ids: Array, left: Array, right: Array) -> None:
        """Let each free channel ``ids[i]`` stand for ``left[i] and right[i]``, everywhere at once."""
        self._settle()
        assert (self._left[ids] == 0).all() and (self._parent[ids] == ids).all() and (self._why[ids] == 0).all()
        self._left[ids], self._right[ids] = left, right

    def resolve(self, labels: Array) -> Array:
        """The labels in terms of free channels: definitions expanded, fixed channels 0, no empty column."""
        self._settle()
        rows = self._find(labels)
        while True:
            rows = np.where(self._why[rows] > 0, 0, rows)
            defined = self._left[rows] != 0
            if not defined.any():
                break
            columns = []
            for column, split in zip(rows.T, defined.T, strict=True):
                if split.any():
                    columns += [
                        np.where(split, self._left[column], column),
                        np.where(split, self._right[column], 0),
                    ]
                else:
                    columns.append(column)
            rows = self._find(np.stack(columns, 1))
        for j in range(1, rows.shape[1]):
            rows[:, j][(rows[:, :j] == rows[:, j : j + 1]).any(1)] = 0
        return rows[:, rows.any(0)]

    def resolve_all(self, arrays: Sequence[Array]) -> list[Array]:
        """`resolve` for many arrays: those of plain single channels, nearly all, are looked up together."""
        if not arrays:
            return []
        rows = self.find(np.concatenate([a.reshape(-1) for a in arrays]))
        rows = np.where(self._why[rows] > 0, 0, rows)
        plain = self._left[rows] == 0
        result, start = [], 0
        for each in arrays:
            part = slice(start, start := start + each.size)
            if each.shape[1] == 1 and plain[part].all():
                column = rows[part]
                result.append(column[:, None] if column.any() else np.zeros((len(column), 0), np.int64))
            else:
                result.append(self.resolve(each))
        return result

    def tie(self, x: Labels, y: Labels, reason: int) -> None:
        """Require that position p of `x` is alive exactly when position p of `y` is.

        Exact wherever one side is a column of free, distinct channels; otherwise coarser but sound:
        matching columns are united, and what matches nothing is united along its row.
        """
        if isinstance(x, int) or isinstance(y, int):
            for side, other in ((x, y), (y, x)):
                if not isinstance(side, int):
                    self.fix(side, other if isinstance(other, int) else reason)
            return
        if x is y:
            return
        if x.shape[1] == y.shape[1] == 1:
            self._ties.append((x[:, 0], y[:, 0], reason))
        else:
            self._settle()
            self._tie(x, y, reason)

    def _tie(self, x: Array, y: Array, reason: int) -> None:
        x, y = self.resolve(x), self.resolve(y)
        x, y = _without(x, y), _without(y, x)
        in_x, in_y = (x > 0).sum(1), (y > 0).sum(1)
        for side, empty in ((x, in_y == 0), (y, in_x == 0)):
            self.fix(side[empty], reason)
        single = (in_x == 1) & (in_y == 1)
        self._ties.append((x[single].sum(1), y[single].sum(1), reason))
        for one, many, rows in ((x, y, (in_x == 1) & (in_y > 1)), (y, x, (in_y == 1) & (in_x > 1))):
            if rows.any():
                self._define_rows(one[rows].sum(1), many[rows], reason)
        both = (in_x > 1) & (in_y > 1)
        if both.any():
            self._match_columns(x[both], y[both], reason)

    def _define_rows(self, one: Array, many: Array, reason: int) -> None:
        """``one[p]`` is alive exactly when all of ``many[p]`` are."""
        one, many = self.find(one), self.resolve(many)
        many = np.take_along_axis(many, np.argsort(many == 0, 1, kind="stable"), 1)
        alive = ~many.any(1)
        self.fix(one[alive], reason)
        one, many = one[~alive], many[~alive]
        if not len(one):
            return
        free = (self._left[one] == 0) & (self._why[one] == 0)
        if free.all() and len(np.unique(one)) == len(one) and not np.isin(one, many).any():
            rest = many[:, 0]
            for column in many.T[1:-1]:
                joint = self.fresh(len(rest))
                self.define(joint, rest, column)
                rest = joint
            self.define(one, rest, many[:, -1] if many.shape[1] > 1 else np.zeros_like(rest))
        else:
            self._unite_rows(np.column_stack([one, many]), reason)

    def _match_columns(self, x: Array, y: Array, reason: int) -> None:
        x, y = x[:, x.any(0)], y[:, y.any(0)]
        patterns = [{np.unique(c, return_inverse=True)[1].tobytes(): c for c in side.T} for side in (x, y)]
        if x.shape[1] == y.shape[1] == len(patterns[0]) and patterns[0].keys() == patterns[1].keys():
            for pattern, column in patterns[0].items():
                self._ties.append((column, patterns[1][pattern], reason))
        else:
            self._unite_rows(np.column_stack([x, y]), reason)

    def _unite_rows(self, rows: Array, reason: int) -> None:
        """Make all channels of a row one channel."""
        first = rows.max(1)
        for column in rows.T:
            there = column > 0
            self._ties.append((first[there], column[there], reason))

    def split(self, labels: Labels, sizes: Sequence[int], reason: int) -> list[Labels | None]:
        """Labels of the factors of an axis that is their ordered product; None for a factor that has none.

        A column that varies along one factor goes to it. A column of free, distinct channels that varies
        along several is refined: ``L[i, j] := A[i] and B[j]``. Any other is united along its inner factors.
        """
        if isinstance(labels, int):
            return [labels for _ in sizes]
        if not len(labels):
            return [0 for _ in sizes]
        wide = [t for t, size in enumerate(sizes) if size > 1]
        if len(wide) < 2:  # nothing to split: most convolutions have one group
            return [labels if t == (wide or [len(sizes) - 1])[0] else None for t in range(len(sizes))]
        rows = self.resolve(labels)
        while (mixed := self._mixed_column(rows, sizes)) is not None:
            grid, along = mixed
            if (grid > 0).all() and len(np.unique(grid)) == grid.size:
                rest, inner = grid.reshape(-1), along
                while len(inner) > 1:
                    head, inner = inner[0], inner[1:]
                    size = sizes[head], prod(sizes[t] for t in inner)
                    outer, rest_labels = self.fresh(size[0]), self.fresh(size[1])
                    self.define(rest, np.repeat(outer, size[1]), np.tile(rest_labels, size[0]))
                    rest = rest_labels
            else:
                flat = grid.reshape(grid.shape[0], -1)
                self._ties.append((np.repeat(flat[:, 0], flat.shape[1]), flat.reshape(-1), reason))
            rows = self.resolve(rows)
        found: list[list[Array]] = [[] for _ in sizes]
        for column in rows.T:
            grid = column.reshape(sizes)
            along = _varies_along(grid)
            axis = along[0] if along else max(range(len(sizes)), key=lambda t: (sizes[t] > 1, t))
            found[axis].append(np.moveaxis(grid, axis, 0).reshape(sizes[axis], -1)[:, 0])
        return [np.stack(columns, 1) if columns else None for columns in found]

    def _mixed_column(self, rows: Array, sizes: Sequence[int]) -> tuple[Array, list[int]] | None:
        for column in rows.T:
            grid = column.reshape(sizes)
            along = _varies_along(grid)
            if len(along) > 1:
                keep = tuple(slice(None) if t in along else 0 for t in range(len(sizes)))
                return grid[keep], along
        return None


def product(labels: Sequence[Labels | None], sizes: Sequence[int]) -> Labels | None:
    """Labels of the ordered product of factors; a factor without labels (or fixed) adds no column."""
    columns: list[Array] = []
    for t, each in enumerate(labels):
        if isinstance(each, np.ndarray):
            before, after = prod(sizes[:t]), prod(sizes[t + 1 :])
            columns.append(each if before == after == 1 else np.tile(np.repeat(each, after, 0), (before, 1)))
    if columns:
        return columns[0] if len(columns) == 1 else np.concatenate(columns, 1)
    return next((each for each in labels if isinstance(each, int)), None)


def stack(labels: Sequence[Labels | None], sizes: Sequence[int]) -> Labels | None:
    """Labels of the concatenation of factors; a fixed factor gives rows of zeros."""
    arrays = [each for each in labels if isinstance(each, np.ndarray)]
    if not arrays:
        return next((each for each in labels if isinstance(each, int)), None)
    rows = np.zeros((sum(sizes), max(a.shape[1] for a in arrays)), np.int64)
    start = 0
    for each, size in zip(labels, sizes, strict=True):
        if isinstance(each, np.ndarray):
            rows[start : start + size, : each.shape[1]] = each
        start += size
    return rows


def row_codes(rows: Array) -> Array:
    """One number per row, equal exactly where rows are; entries are at least -1."""
    codes = rows[:, 0] + 1 if rows.shape[1] else np.zeros(len(rows), np.int64)
    for column in rows.T[1:]:
        span = int(column.max(initial=0)) + 2
        if codes.max(initial=0) > np.iinfo(np.int64).max // (2 * span):
            codes = np.unique(codes, return_inverse=True)[1].reshape(-1)
        codes = codes * span + column + 1
    return codes


def _each(values: Sequence[int], arrays: Sequence[Array]) -> Array:
    """Every value as often as its array is long."""
    return np.repeat(np.array(values, np.int64), [len(a) for a in arrays])


def _without(x: Array, y: Array) -> Array:
    """The labels of `x` that are not in the same row of `y`."""
    return np.where((x[:, :, None] == y[:, None, :]).any(2), 0, x) if x.shape[1] and y.shape[1] else x


def _varies_along(grid: Array) -> list[int]:
    return [t for t in range(grid.ndim) if (grid != grid.take([0], t)).any()]
