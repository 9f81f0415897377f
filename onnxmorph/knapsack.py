"""Which channels stay, so that what they are worth together is most under all limits: a knapsack.

Costs are neither separable nor always monotone (a measured latency has steps, and may rise where a channel goes), so
nothing here solves for them: prices are differences of exact costs at the widths reached so far, and what is taken is
always looked at first. Three phases: a path of small stages from the full network down to the budget, on each of which
the blocks go that are worth least for what they save; then whatever still fits comes back; then exchanges. Where few
blocks are left, the last two also start from the least widths, and the better end is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.budget import Budget, out_of_reach
from onnxmorph.polynomial import Resource, Widths, sweep
from onnxmorph.progress import told
from onnxmorph.widths import Grid, Multiple, holding, keep_best, least, slices, steps

STAGES = 48  # of the path, each the same factor of the cost
MOST = 8  # a group loses at most one in so many of its channels before prices are looked at again
NEAR = 16  # so many wider widths of a group are looked at one by one; all others at doubling distances
PREFIXES = 32  # so many places of an order are looked at at once
EXCHANGES = 64  # the moves either way that are paired: those that are worth most, or least, for their load
GAIN = 1e-6  # of what is kept: what an exchange must bring
FEW = 256  # blocks


def select(
    analysis: Analysis,
    scores: Floats,
    budget: Budget,
    round_to: Multiple = 1,
    may_empty: Mask | None = None,
) -> Array:
    """Choose the channels that stay, so that their scores add up to most under all limits.

    In every group the channels with the lowest scores go. No group could be one step wider within the budget.

    Args:
        analysis: of the model.
        scores: ``[channels + 1]``, not negative, comparable across groups; ``scores[0]`` is not read.
        budget: the limits.
        round_to: widths become multiples of this, where the group is no outer factor; ``auto``: what costs reward.
        may_empty: the groups that may lose all their channels, ``[groups]``; none if not given.

    Returns:
        copies, ``[channels + 1]`` of zeros and ones.

    Raises:
        BudgetError: no widths were found that meet it; the message says what comes closest.
    """
    step = steps(analysis, round_to, budget)
    found = Knapsack.of(analysis, scores, budget, Grid.of(analysis, step, may_empty))
    widths = found.descend()
    if not found.fits(widths):
        widths = found.approach(widths)
    if not found.fits(widths):
        raise out_of_reach(analysis, budget, widths, holding(analysis, least(analysis, step)))
    few = (widths // step).sum() <= FEW and found.fits(found.grid.low)
    ends = map(found.improve, [widths, found.grid.low] if few else [widths])
    return keep_best(analysis, scores, max(ends, key=found.kept))


@dataclass(frozen=True)
class Moves:
    """Other widths of single groups, and what the whole network then takes of each limit."""

    groups: Array  # [moves]
    widths: Widths  # [moves]
    gains: Floats  # [moves], of kept score
    loads: NDArray[np.float64]  # [moves, limits]

    def __getitem__(self, chosen: NDArray[np.generic]) -> Moves:
        return Moves(self.groups[chosen], self.widths[chosen], self.gains[chosen], self.loads[chosen])


@dataclass(frozen=True)
class Knapsack:
    """The widths that may be chosen, what they are worth, and what they cost as shares of the limits (loads).

    ``worth[first[g] + w]`` is the sum of the w highest scores of group g. Blocks are the steps of all groups, widest
    first: block b of group ``owner[b]`` ends at width ``top[b]``, begins above ``bottom[b]``, and a channel of it is
    worth ``each[b]``.
    """

    grid: Grid
    worth: Floats
    first: Array
    owner: Array
    top: Widths
    bottom: Widths
    each: Floats
    resources: tuple[Resource, ...]
    limits: tuple[float, ...]

    @staticmethod
    def of(analysis: Analysis, scores: Floats, budget: Budget, grid: Grid) -> Knapsack:
        """From scores, ``[channels + 1]``."""
        sums = [np.append(0.0, np.cumsum(np.sort(scores[own])[::-1])) for own in slices(analysis)]
        widths = [grid.blocks(g)[::-1] for g in range(len(sums))]
        # What lies above a block goes before it, so a block is worth at least as much as those.
        each = [
            np.maximum.accumulate(np.diff(s[w]) / np.minimum(np.diff(w), -1)) for s, w in zip(sums, widths, strict=True)
        ]
        limits = budget.absolute(analysis)
        return Knapsack(
            grid,
            np.concatenate([np.zeros(0), *sums]),
            np.cumsum([0, *map(len, sums)])[:-1],
            np.repeat(np.arange(len(sums)), [len(w) - 1 for w in widths]),
            np.concatenate([np.zeros(0, np.int64), *(w[:-1] for w in widths)]),
            np.concatenate([np.zeros(0, np.int64), *(w[1:] for w in widths)]),
            np.concatenate([np.zeros(0), *each]),
            tuple(analysis.costs[name] for name in limits),
            tuple(limits.values()),
        )

    def fits(self, widths: Widths) -> bool:
        """Whether the exact costs are within all limits."""
        return all(r.value(widths) <= most for r, most in zip(self.resources, self.limits, strict=True))

    def kept(self, widths: Widths) -> float:
        """The scores that are kept."""
        return float(self.worth[self.first + widths].sum())

    def loads(self, many: Widths) -> NDArray[np.float64]:
        """Costs as shares of the limits, ``[n, groups] -> [n, limits]``; at most 1 is within."""
        loads = [
            sweep(r, many) / most if most else 1.0 + sweep(r, many)
            for r, most in zip(self.resources, self.limits, strict=True)
        ]
        return np.stack(loads, 1)

    def moves(self, widths: Widths, wider: bool) -> Moves:
        """The widths that every group might have instead, nearest first."""
        most = int(((self.grid.high - self.grid.low) // self.grid.step).max(initial=0)) + 1
        far = {1 << k for k in range(most.bit_length() + 1)}
        spans = sorted(far.union(range(1, NEAR + 1)) if wider else far)
        table = np.stack([self.grid.up(widths, k) if wider else self.grid.down(widths, k) for k in spans])
        new = np.diff(table, axis=0, prepend=widths[None]) != 0
        at, groups = np.nonzero(new)
        return self._moved(widths, groups, table[at, groups])

    def _moved(self, widths: Widths, groups: Array, to: Widths) -> Moves:
        many = np.repeat(widths[None], len(groups), 0)
        many[np.arange(len(groups)), groups] = to
        gains = self.worth[self.first[groups] + to] - self.worth[self.first[groups] + widths[groups]]
        return Moves(groups, to, gains, self.loads(many))

    # -- down to the budget ------------------------------------------------------------------------

    def descend(self) -> Widths:
        """The path from the full widths to the first ones found that fit; the last ones reached if none do."""
        widths = self.grid.high
        start = np.maximum(self.loads(widths[None])[0], 1.0)
        for stage in told("Choosing channels", range(1, STAGES + 1)):
            allowed = start ** (1 - stage / STAGES)
            while not (self.loads(widths[None])[0] <= allowed).all():
                after = self._stage(widths, allowed)
                if (after == widths).all():  # no group saves anything by itself: all become narrower
                    after = self.grid.down(widths, 1 + widths // MOST // self.grid.step)
                if (after == widths).all():
                    break
                widths = after
        return widths

    def _stage(self, widths: Widths, allowed: Floats) -> Widths:
        """Remove the blocks that are worth least for their price until loads are allowed, or prices have changed."""
        price = self._prices(widths, allowed)[self.owner]
        start = widths[self.owner]
        floor = start - np.maximum(start // MOST, 1)
        near = (self.top <= start) & ((self.top == start) | (self.bottom >= floor)) & (price > 0)
        blocks = np.flatnonzero(near)
        order = blocks[np.argsort(self.each[blocks] / price[blocks], kind="stable")]
        few, many = 0, len(order)  # `few` blocks are too few
        while many > few:
            counts = np.unique(np.linspace(few, many, PREFIXES + 1).astype(int))[1:]
            rows = np.repeat(widths[None], len(counts), 0)
            for row, count in zip(rows, counts.tolist(), strict=True):
                np.minimum.at(row, self.owner[order[:count]], self.bottom[order[:count]])
            enough = np.flatnonzero((self.loads(rows) <= allowed).all(1))
            if not len(enough):
                widths = rows[-1]
                break
            k = int(enough[0])
            few, many = (int(counts[k - 1]) if k else few), int(counts[k])
            if many - few <= 1:
                widths = rows[k]
                break
        return widths

    def _prices(self, widths: Widths, allowed: Floats) -> Floats:
        """What a channel of every group saves, ``[groups]``: the most that going on in the group saves per channel.

        Limits count by how far (in logarithms) they are from what is allowed.
        """
        now, moves = self.loads(widths[None])[0], self.moves(widths, wider=False)
        weights = np.log(np.maximum(now / allowed, 1.0)) / now
        saved = (now - moves.loads) @ weights / (widths[moves.groups] - moves.widths)
        price = np.zeros(len(widths))
        np.maximum.at(price, moves.groups, saved)
        return price

    def approach(self, widths: Widths) -> Widths:
        """Change single groups as long as that brings the load that exceeds its limit most nearer to it."""
        while True:
            now = np.maximum(self.loads(widths[None])[0], 1.0)
            for moves in (self.moves(widths, wider=False), self.moves(widths, wider=True)):
                over = np.maximum(moves.loads, 1.0)
                best = int(np.lexsort((over.sum(1), over.max(1)))[0]) if len(over) else -1
                if best >= 0 and (over[best].max(), over[best].sum()) < (now.max(), now.sum()):
                    widths = _with(widths, moves, best)
                    break
            else:
                return widths

    # -- up again ----------------------------------------------------------------------------------

    def improve(self, widths: Widths) -> Widths:
        """Widths that fit and are worth more: free ones, what is left of the budget, exchanges."""
        while True:
            wider = self.moves(widths, wider=True)
            after = self._added(widths, wider)
            if (after == widths).all():
                after = self._exchanged(widths, wider)
            if (after == widths).all():
                return widths
            widths = after

    def _added(self, widths: Widths, wider: Moves) -> Widths:
        """Every group as wide as fits, what is worth most for the share that it takes of what is left first."""
        now = self.loads(widths[None])[0]
        good = wider[(wider.loads <= 1).all(1) & (wider.gains > 0)]
        taken = np.maximum((good.loads - now) / np.maximum(1 - now, 1e-12), 0).max(1)
        ratio = np.divide(good.gains, taken, out=np.full(len(taken), np.inf), where=taken > 1e-12)
        done = set[int]()
        for move in np.lexsort((-good.gains, -ratio)).tolist():
            g = int(good.groups[move])
            if g not in done and self.fits(wide := _with(widths, good, move)):
                widths = wide
                done.add(g)
        return widths

    def _exchanged(self, widths: Widths, wider: Moves) -> Widths:
        """The best exchanges: one group becomes narrower, another wider."""
        now, narrower = self.loads(widths[None])[0], self.moves(widths, wider=False)
        ratios = (m.gains / np.maximum(np.abs(m.loads - now).max(1), 1e-12) for m in (narrower, wider))
        # The gain of a narrower group is negative: either way the largest ratios are the best.
        down, up = (m[np.argsort(-r)[:EXCHANGES]] for m, r in zip((narrower, wider), ratios, strict=True))
        less, more = (now - down.loads)[:, None], up.loads - now
        gains = down.gains[:, None] + up.gains
        slack = 2 * np.maximum(less, 0) * np.maximum(more, 0) + 1e-3  # a cost may be a product
        seem = (now + more - less <= 1 + slack).all(2)
        one, other = np.nonzero(seem & (gains > GAIN * self.kept(widths)) & (down.groups[:, None] != up.groups))
        best = np.argsort(-gains[one, other], kind="stable")
        one, other = one[best], other[best]
        many = np.repeat(widths[None], len(best), 0)
        many[np.arange(len(best)), down.groups[one]] = down.widths[one]
        many[np.arange(len(best)), up.groups[other]] = up.widths[other]
        done = set[int]()
        for k in np.flatnonzero((self.loads(many) <= 1).all(1)).tolist():
            groups = [int(down.groups[one[k]]), int(up.groups[other[k]])]
            if done.isdisjoint(groups):
                after = widths.copy()
                after[groups] = many[k, groups]
                if self.fits(after):
                    widths = after
                    done.update(groups)
        return widths


def _with(widths: Widths, moves: Moves, number: int) -> Widths:
    result = widths.copy()
    result[moves.groups[number]] = moves.widths[number]
    return result
