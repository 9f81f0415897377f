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


class Channels:
    """Union-find over channels, with definitions ``c := a and b`` and reasons for being fixed.

    Channel 0 is always alive. A channel is *free* until it is united with another, defined as the
    conjunction of two others, or fixed for a reason.
    """

    def __init__(self) -> None:
        self._parent = np.zeros(1, np.int64)
        self._left = np.zeros(1, np.int64)
        self._right = np.zeros(1, np.int64)
        self._why = np.zeros(1, np.int64)
        self._count = 1

    def fresh(self, n: int) -> Array:
        """N new free channels, shape ``[n]``."""
        start, self._count = self._count, self._count + n
        if self._count > len(self._parent):
            room = max(self._count, 2 * len(self._parent))
            for name in ("_parent", "_left", "_right", "_why"):
                grown = np.zeros(room, np.int64)
                old = getattr(self, name)
                grown[: len(old)] = old
                setattr(self, name, grown)
        new = np.arange(start, self._count)
        self._parent[new] = new
        return new

    def find(self, ids: Array) -> Array:
        """The representative of each channel; same shape."""
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
        roots = self.find(ids)
        found = self._why[roots]
        while (open_ := (found == 0) & (self._left[roots] > 0)).any():
            left, right = self.find(self._left[roots]), self.find(self._right[roots])
            roots = np.where(open_, np.where(self._why[left] > 0, left, right), roots)
            found = self._why[roots]
        return found

    def fix(self, ids: Array, reason: int) -> None:
        """Keep these channels (and all that they are made of) for ever."""
        roots = self.find(ids.reshape(-1))
        while len(roots := roots[(roots > 0) & (self._why[roots] == 0)]):
            self._why[roots] = reason
            roots = self.find(np.concatenate([self._left[roots], self._right[roots]]))

    def unite(self, a: Array, b: Array, reason: int) -> None:
        """Make ``a[i]`` and ``b[i]`` one channel, for every i; a zero fixes its partner for `reason`."""
        while True:
            ra, rb = self.find(a), self.find(b)
            low, high = np.minimum(ra, rb), np.maximum(ra, rb)
            apart = low != high
            if not apart.any():
                return
            low, high = low[apart], high[apart]
            if self._plain(low) and self._plain(high) and (high[1:] > high[:-1]).all():
                self._parent[high] = low  # by far the most frequent: free channels, each in one pair
                return
            self.fix(high[low == 0], reason)
            for one, other in ((low, high), (high, low)):
                held = self._why[one] > 0
                for number in np.unique(self._why[one[held]]) if held.any() else ():
                    self.fix(other[self._why[one] == number], int(number))
            free = (low > 0) & (self._why[low] == 0) & (self._why[high] == 0)
            low, high = low[free], high[free]
            if not len(low):
                return
            if (self._left[low] != 0).any() or (self._left[high] != 0).any():
                # resolve() hands out no defined channel; one defined meanwhile is settled by fixing it
                defined = (self._left[low] != 0) | (self._left[high] != 0)
                self.fix(np.concatenate([low[defined], high[defined]]), reason)
                low, high = low[~defined], high[~defined]
            np.minimum.at(self._parent, high, low)

    def _plain(self, roots: Array) -> bool:
        """Whether none of them is always alive, fixed or defined."""
        return bool(roots.all() and not self._why[roots].any() and not self._left[roots].any())

    def define(self, ids: Array, left: Array, right: Array) -> None:
        """Let each free channel ``ids[i]`` stand for ``left[i] and right[i]``, everywhere at once."""
        assert (self._left[ids] == 0).all() and (self._parent[ids] == ids).all() and (self._why[ids] == 0).all()
        self._left[ids], self._right[ids] = left, right

    def resolve(self, labels: Array) -> Array:
        """The labels in terms of free channels: definitions expanded, fixed channels 0, no empty column."""
        rows = self.find(labels)
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
            rows = self.find(np.stack(columns, 1))
        for j in range(1, rows.shape[1]):
            rows[:, j][(rows[:, :j] == rows[:, j : j + 1]).any(1)] = 0
        return rows[:, rows.any(0)]

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
        if x is y or np.array_equal(x, y):
            return
        if x.shape[1] == y.shape[1] == 1:  # one channel each, none of them defined
            one, other = self.find(x[:, 0]), self.find(y[:, 0])
            if not (self._left[one].any() or self._left[other].any()):
                return self.unite(one, other, reason)
        x, y = self.resolve(x), self.resolve(y)
        x, y = _without(x, y), _without(y, x)
        in_x, in_y = (x > 0).sum(1), (y > 0).sum(1)
        for side, empty in ((x, in_y == 0), (y, in_x == 0)):
            self.fix(side[empty], reason)
        single = (in_x == 1) & (in_y == 1)
        self.unite(x[single].sum(1), y[single].sum(1), reason)
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
                self.unite(column, patterns[1][pattern], reason)
        else:
            self._unite_rows(np.column_stack([x, y]), reason)

    def _unite_rows(self, rows: Array, reason: int) -> None:
        """Make all channels of a row one channel."""
        first = rows.max(1)
        for column in rows.T:
            there = column > 0
            self.unite(first[there], column[there], reason)

    def split(self, labels: Labels, sizes: Sequence[int], reason: int) -> list[Labels | None]:
        """Labels of the factors of an axis that is their ordered product; None for a factor that has none.

        A column that varies along one factor goes to it. A column of free, distinct channels that varies
        along several is refined: ``L[i, j] := A[i] and B[j]``. Any other is united along its inner factors.
        """
        if isinstance(labels, int):
            return [labels for _ in sizes]
        if not len(labels):
            return [0 for _ in sizes]
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
                self.unite(np.repeat(flat[:, 0], flat.shape[1]), flat.reshape(-1), reason)
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


def _without(x: Array, y: Array) -> Array:
    """The labels of `x` that are not in the same row of `y`."""
    return np.where((x[:, :, None] == y[:, None, :]).any(2), 0, x) if x.shape[1] and y.shape[1] else x


def _varies_along(grid: Array) -> list[int]:
    return [t for t in range(grid.ndim) if (grid != grid.take([0], t)).any()]
