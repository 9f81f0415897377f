"""Widths that meet a budget: by selection (shrink) and by a width multiplier (scale, expand)."""

from __future__ import annotations

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.budget import Budget, out_of_reach
from onnxmorph.polynomial import Widths


def steps(analysis: Analysis, round_to: int) -> Widths:
    """The multiple that every group's width is rounded to, ``[groups]``.

    Groups that are an axis of a parameter on their own, or its inner factor, are rounded. What is an outer factor
    anywhere (heads, norm groups, convolution groups) is not: a multiple of the inner factor is one already. A
    multiple that the analysis's bounds give a group goes first.
    """
    result = np.ones(len(analysis.groups), np.int64)
    columns = [rows for name in analysis.parameters for rows in analysis.rows[name] if rows is not None]
    for rows in columns:
        result[np.unique(analysis.group_of[rows[:, -1][rows[:, -1] > 0]])] = round_to
    for outer in (rows[:, :-1] for rows in columns if rows.shape[1] > 1):
        result[np.unique(analysis.group_of[outer[outer > 0]])] = 1
    return np.where(analysis.multiple > 0, analysis.multiple, result)


def _round(widths: Array, step: Widths, low: Widths, high: Widths | None) -> Widths:
    """Down to a multiple of the step, within bounds; a group narrower than its step stays as it is."""
    down = np.where(widths >= step, widths // step * step, low)
    down = np.maximum(down, low)
    return down if high is None else np.where(widths >= high, high, np.minimum(down, high))


def _least(analysis: Analysis, step: Widths) -> Widths:
    """The least widths that bounds ask for, rounded up; the whole group where it is narrower. 1 where none is."""
    up = -(-analysis.minimum // step) * step
    return np.where(analysis.minimum > 1, np.minimum(up, analysis.widths), 1)


def _floor(analysis: Analysis, step: Widths) -> Widths:
    """The smallest width of every group: one step or the least allowed, or the whole group where it is narrower."""
    return np.maximum(np.minimum(step, analysis.widths), _least(analysis, step))


def fill(
    analysis: Analysis,
    widths: Widths,
    budget: Budget,
    step: Widths,
    high: Widths | None,
    wish: Floats,
) -> Widths:
    """Spend what is left of the budget: widen each group by one step, most wished for first, where that fits.

    Args:
        analysis: gives the costs.
        widths: satisfy the budget.
        budget: the limits.
        step: of every group; a step ends at a multiple of itself, or at `high`.
        high: the largest widths, or None.
        wish: the order in which groups are tried, largest first, ``[groups]``.
    """
    widths = widths.copy()
    limits = budget.absolute(analysis)
    for g in np.argsort(-wish, kind="stable"):
        grown = (widths[g] // step[g] + 1) * step[g]
        grown = grown if high is None else min(grown, high[g])
        before, widths[g] = widths[g], grown
        if any(analysis.costs[name].value(widths) > most for name, most in limits.items()):
            widths[g] = before
    return widths


def multiply(
    analysis: Analysis, base: Widths, budget: Budget, round_to: int = 1, grow: bool = True
) -> tuple[float, Widths]:
    """The largest width multiplier whose rounded widths satisfy the budget, and these widths.

    What rounding left over is then spent on the groups that rounding cut most. Groups that are one channel
    wide in the model do not grow, and empty ones stay empty.

    Args:
        analysis: of the original model.
        base: the widths to be multiplied, ``[groups]``.
        budget: the limits.
        round_to: widths become multiples of this, where the group is no outer factor.
        grow: whether widths may exceed those of the model.

    Raises:
        BudgetError: even the smallest widths cost more.

    Source: MorphNet (arXiv 1711.06798), Algorithm 1, step 3.
    """
    step = steps(analysis, round_to)
    low = np.where(base == 0, 0, np.maximum(np.minimum(_floor(analysis, step), base), _least(analysis, step)))
    held = (analysis.widths == 1) | (base == 0)

    def widths(omega: float) -> Widths:
        raw = np.floor(base * omega + 1e-9).astype(np.int64)
        high = None if grow else analysis.widths
        return np.where(held, np.minimum(base, 1), _round(raw, step, low, high))

    if not budget.met(analysis, widths(0.0)):
        raise out_of_reach(analysis, budget, widths(0.0))
    below, above = 0.0, 1.0
    while budget.met(analysis, widths(above)) and above < 1e6:
        below, above = above, above * 2
        if not grow and (widths(below) >= analysis.widths).all():
            break
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if budget.met(analysis, widths(middle)) else (below, middle)
    found = widths(below)
    high = analysis.widths if not grow else np.where(held, found, np.iinfo(np.int64).max // 2)
    return below, fill(analysis, found, budget, step, high, (base * below - found) / np.maximum(found, 1))


def select(
    analysis: Analysis, scores: Floats, budget: Budget, round_to: int = 1, may_empty: Mask | None = None
) -> Array:
    """Remove the channels with the lowest scores, over all groups, until the budget is met.

    Args:
        analysis: of the model.
        scores: ``[channels + 1]``, comparable across groups; ``scores[0]`` is not read.
        budget: the limits.
        round_to: widths become multiples of this, where the group is no outer factor.
        may_empty: the groups that may lose all their channels, ``[groups]``; none if not given.

    Returns:
        copies, ``[channels + 1]`` of zeros and ones.

    Raises:
        BudgetError: even one step of every group costs more.
    """
    step = steps(analysis, round_to)
    low, full, owner = _floor(analysis, step), analysis.widths, analysis.group_of[1:]
    low = low if may_empty is None else np.where(may_empty, 0, low)
    order = np.argsort(scores[1:], kind="stable")

    def widths(removed: int) -> Widths:
        alive = np.bincount(owner[order[removed:]], minlength=len(full))
        return np.asarray(np.minimum(np.maximum(-(-alive // step) * step, low), full))

    if not budget.met(analysis, widths(len(order))):
        raise out_of_reach(analysis, budget, widths(len(order)))
    few, many = -1, len(order)  # `few` removed are too few, `many` are enough
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if budget.met(analysis, widths(middle)) else (middle, many)
    chosen = widths(many)
    last = np.zeros(len(full))
    np.maximum.at(last, owner[order[:many]], np.arange(many, dtype=float))  # the best channel lost, per group
    chosen = fill(analysis, chosen, budget, step, full, last)
    return keep_best(analysis, scores, chosen)


def keep_best(analysis: Analysis, scores: Floats, widths: Widths) -> Array:
    """Copies that keep the ``widths[g]`` channels with the highest scores of every group, ``[channels + 1]``."""
    copies = np.zeros(analysis.channels + 1, np.int64)
    copies[0] = 1
    for group, width in zip(analysis.groups, widths, strict=True):
        own = scores[group.start + 1 : group.start + 1 + group.width]
        copies[group.start + 1 + np.argsort(-own, kind="stable")[:width]] = 1
    return copies


def spread(analysis: Analysis, copies: Array, widths: Widths) -> Array:
    """Copies that widen every group to ``widths[g]``, its live channels copied equally often (give or take one).

    A group without live channels has nothing to copy and stays empty.
    """
    result = copies.copy()
    for group, width in zip(analysis.groups, widths, strict=True):
        own = slice(group.start + 1, group.start + 1 + group.width)
        live = np.flatnonzero(copies[own])
        if not len(live):
            continue
        if width < len(live):
            live = live[:width]
        result[own] = np.bincount(live[np.arange(width) % len(live)], minlength=group.width)
    return result
