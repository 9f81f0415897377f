"""Channels that go together, where a cost does not fall with each of them: measured latency falls in steps."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.polynomial import Uneven, Widths, sweep

SLACK = 0.005  # of a limit, that may stay unused
OTHERS = 64  # blocks that may go in place of the last one
POINTS = 32  # narrower widths of a group that are looked at, about


def rising(analysis: Analysis, limits: Collection[str]) -> Mask:
    """The groups that may make one of these costs rise when they lose a channel, ``[groups]``."""
    result = np.zeros(len(analysis.groups), bool)
    for resource in (analysis.costs[name] for name in limits):
        if isinstance(resource, Uneven):
            result |= resource.rises
    return result


@dataclass(frozen=True)
class Savings:
    """What a group of some width saves that loses channels while the others keep theirs.

    ``gone`` and ``saved`` are ``[points]``, from no channel up.
    """

    group: int
    width: int
    gone: Widths
    saved: Floats

    def parts(self, worth: Floats) -> list[tuple[int, int, float]]:
        """How the channels of the group go best, in blocks: first, behind the last, worth over saving of the block.

        The corners of the upper hull of the saving over what is lost for it; behind the last nothing is saved. Channels
        say more as their siblings go: where n are left of m, each counts as m / n of what it says while all are there.

        Args:
            worth: of the channels that may go, ascending.
        """
        gone = self.gone[self.gone <= len(worth)]
        left = self.width / (self.width - np.arange(len(worth)))
        lost = np.append(0.0, np.cumsum(worth * left))[gone]
        found, at = list[tuple[int, int, float]](), 0
        while at + 1 < len(gone):
            saved = self.saved[at + 1 : len(gone)] - self.saved[at]
            paid = np.maximum(lost[at + 1 :] - lost[at], 1e-30)
            best = int((saved / paid).argmax())
            if saved[best] <= 0:
                break
            found.append((int(gone[at]), int(gone[at + 1 + best]), float(paid[best] / saved[best])))
            at += 1 + best
        return found


def savings(analysis: Analysis, factors: Mapping[str, float], widths: Widths, groups: Mask) -> list[Savings]:
    """What each of the groups saves at every so many channels less, down to its least width.

    Args:
        analysis: gives the costs.
        factors: what a unit of each cost counts (`penalty.charges`).
        widths: the live widths, ``[groups]``.
        groups: those that are looked at, ``[groups]``.
    """
    each = [(int(g), _narrower(int(widths[g]), int(max(analysis.minimum[g], 1)))) for g in np.flatnonzero(groups)]
    each = [(g, below) for g, below in each if len(below) > 1]
    many = np.concatenate([np.empty((0, len(widths)), np.int64), *(_with(widths, g, below) for g, below in each)])
    total = sum((factor * sweep(analysis.costs[n], many) for n, factor in factors.items()), np.zeros(len(many)))
    parts = np.split(total, np.cumsum([len(below) for _, below in each])[:-1]) if each else []
    return [
        Savings(g, int(widths[g]), widths[g] - below, part[0] - part)
        for (g, below), part in zip(each, parts, strict=True)
    ]


def together(analysis: Analysis, found: list[Savings], worth: Floats, may: Mask, by: Floats) -> tuple[Floats, Array]:
    """The order in which channels go, and which of them at once.

    Args:
        analysis: says whose channels they are.
        found: by `savings`.
        worth: of every channel, ``[channels + 1]``.
        may: whether it may go, ``[channels + 1]``.
        by: the order, for channels of other groups, ``[channels + 1]``.

    Returns:
        `by`, where all channels of a block have its worth over its saving; the number of the block of every channel.
        Both are ``[channels + 1]``.
    """
    by, block = by.copy(), np.arange(len(by))
    for each in found:
        own = np.flatnonzero(may & (analysis.group_of == each.group))
        own = own[np.argsort(worth[own], kind="stable")]
        by[own] = np.inf
        for start, stop, ratio in each.parts(worth[own]):
            by[own[start:stop]], block[own[start:stop]] = ratio, own[start]
    return by, block


def first_blocks(
    analysis: Analysis,
    order: Array,
    block: Array,
    widths: Widths,
    limits: Mapping[str, float],
    budget: Mapping[str, float],
) -> Array:
    """The first blocks of an order, as few as meet the limits; all where that is not enough.

    Where the last of them would leave more than `SLACK` of the budget unused, others go in its place: the next of one
    group, or all those behind it until that is enough; of these the ones that leave least. Then those stay after all
    that fit.

    Args:
        analysis: gives the costs.
        order: channels, those of a block side by side.
        block: the number of the block of every channel, ``[channels + 1]``.
        widths: the live widths, ``[groups]``.
        limits: what costs may be now, by name.
        budget: what they may be at the end, by name.
    """
    names, now, end = [*limits], np.array([*limits.values()], float), np.array([budget[n] for n in limits], float)

    def costs(many: Widths) -> Floats:
        return np.stack([sweep(analysis.costs[name], many) for name in names], 1)  # [n, limits]

    def fit(many: Widths) -> Mask:
        return np.asarray((costs(many) <= now).all(1), bool)

    def used(many: Widths) -> Floats:
        return np.asarray((costs(many) / np.where(end > 0, end, 1.0)).max(1), float)

    starts = np.flatnonzero(np.append(True, np.diff(block[order]) != 0)[: len(order)])
    sizes, owner = np.diff(starts, append=len(order)), analysis.group_of[order[starts]]
    drops = np.zeros((len(starts), len(widths)), np.int64)  # [blocks, groups]
    drops[np.arange(len(starts)), owner] = sizes
    met = fit(np.concatenate([widths[None], widths - np.cumsum(drops, 0)]))
    if met[0] or not met.any():
        return order[:0] if met[0] else order
    last = int(met.argmax()) - 1
    gone = np.arange(len(starts)) <= last
    if used(widths[None] - drops[gone].sum(0))[0] < 1 - SLACK:
        others = last + np.flatnonzero(owner[last:] != owner[last])[:OTHERS]
        ways = np.repeat(gone[None], 1 + 2 * len(others), 0)  # [ways, blocks]
        ways[1:, last] = False
        for n, k in enumerate(others.tolist(), 1):
            ways[n, k] = k == others[owner[others] == owner[k]][0]  # before the next of a group none can go
            ways[-n, others[:n]] = True
        many = widths - ways.astype(np.int64) @ drops
        gone = ways[int(np.where(fit(many), used(many), -1.0).argmax())]
    left, stuck = widths - drops[gone].sum(0), set[int]()
    for k in np.flatnonzero(gone)[::-1].tolist():
        if owner[k] not in stuck and fit(left[None] + drops[k])[0]:
            gone[k], left = False, left + drops[k]
        else:
            stuck.add(int(owner[k]))
    return order[np.repeat(gone, sizes)]


def _narrower(width: int, least: int) -> Widths:
    """The width, then the multiples below it of a power of two that makes them about `POINTS`, then the least."""
    step = 1 << max(0, (width - 1).bit_length() - POINTS.bit_length() + 1)
    inner = np.arange((width - 1) // step * step, least, -step)
    return np.concatenate([[width], inner, [least] if least < width else []]).astype(np.int64)


def _with(widths: Widths, group: int, others: Widths) -> Widths:
    many = np.repeat(widths[None], len(others), 0)
    many[:, group] = others
    return many
