"""Which widths a group may have, and which channels make one up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.budget import Budget
from onnxmorph.polynomial import Stepped, Widths

Multiple = int | str  # a number, or "auto"


def steps(analysis: Analysis, round_to: Multiple = 1, budget: Budget | None = None) -> Widths:
    """The multiple that every group's width is rounded to, ``[groups]``.

    Groups that are an axis of a parameter on their own, or its inner factor, are rounded. What is an outer factor
    anywhere (heads, norm groups, convolution groups) is not: a multiple of the inner factor is one already. With
    ``auto`` it is what the resources in the budget reward, the largest of several. A multiple that the analysis's
    bounds give a group goes first.
    """
    if round_to == "auto":
        offered = rewarded(analysis, budget)
        return np.where(analysis.multiple > 0, analysis.multiple, offered)
    result = np.ones(len(analysis.groups), np.int64)
    columns = [rows for name in analysis.parameters for rows in analysis.rows[name] if rows is not None]
    for rows in columns:
        result[np.unique(analysis.group_of[rows[:, -1][rows[:, -1] > 0]])] = round_to
    result[analysis.outer] = 1
    return np.where(analysis.multiple > 0, analysis.multiple, result)


def rewarded(analysis: Analysis, budget: Budget | None) -> Widths:
    """The multiples that the resources in the budget offer, ``[groups]``; 1 where there is none."""
    result = np.ones(len(analysis.groups), np.int64)
    for resource in budget.resources(analysis).values() if budget is not None else ():
        if isinstance(resource, Stepped):
            result = np.maximum(result, resource.multiples)
    return result


@dataclass(frozen=True)
class Grid:
    """The widths that groups may have: multiples of ``step`` between ``low`` and ``high``, and both ends.

    All are ``[groups]``. A group narrower than its step stays as it is.
    """

    step: Widths
    low: Widths
    high: Widths

    @staticmethod
    def of(analysis: Analysis, step: Widths, may_empty: Mask | None = None) -> Grid:
        """From one step, or the least width allowed, to the full width; `may_empty` are groups that start at 0."""
        low = least(analysis, step)
        return Grid(step, low if may_empty is None else np.where(may_empty, 0, low), analysis.widths)

    def down(self, widths: Widths, blocks: int | Widths = 1) -> Widths:
        """So many steps narrower, or the least width."""
        result: Widths = np.maximum((-(-widths // self.step) - blocks) * self.step, np.minimum(self.low, widths))
        return result

    def up(self, widths: Widths, blocks: int = 1) -> Widths:
        """So many steps wider, or the full width."""
        result: Widths = np.minimum((widths // self.step + blocks) * self.step, self.high)
        return result

    def blocks(self, group: int) -> Widths:
        """All widths of a group, ascending."""
        low, high, step = int(self.low[group]), int(self.high[group]), int(self.step[group])
        inner = np.arange((low // step + 1) * step, high, step)
        return np.unique(np.concatenate([[low], inner, [high]]))


def asked(analysis: Analysis, step: Widths) -> Widths:
    """The least widths that bounds ask for, rounded up; the whole group where it is narrower. 1 where none is."""
    up = -(-analysis.minimum // step) * step
    return np.where(analysis.minimum > 1, np.minimum(up, analysis.widths), 1)


def least(analysis: Analysis, step: Widths) -> Widths:
    """The smallest width of every group: one step or the least allowed, or the whole group where it is narrower."""
    return np.maximum(np.minimum(step, analysis.widths), asked(analysis, step))


def holding(analysis: Analysis, low: Widths) -> list[str]:
    """What keeps the least widths above 1, in words."""
    words = [
        ("least widths", analysis.minimum > 1),
        ("rounding", (low > np.maximum(analysis.minimum, 1)) & (analysis.widths > 1)),
    ]
    return [f"{why} of {_named(analysis, mask)}" for why, mask in words if mask.any()]


def _named(analysis: Analysis, mask: Mask) -> str:
    ids = [g.id for g, held in zip(analysis.groups, mask, strict=True) if held]
    return ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")


def keep_best(analysis: Analysis, scores: Floats, widths: Widths) -> Array:
    """Copies that keep the ``widths[g]`` channels with the highest scores of every group, ``[channels + 1]``."""
    copies = np.zeros(analysis.channels + 1, np.int64)
    copies[0] = 1
    for own, width in zip(slices(analysis), widths, strict=True):
        copies[own.start + np.argsort(-scores[own], kind="stable")[:width]] = 1
    return copies


def spread(analysis: Analysis, copies: Array, widths: Widths) -> Array:
    """Copies that widen every group to ``widths[g]``, its live channels copied equally often (give or take one).

    A group without live channels has nothing to copy and stays empty.
    """
    result = copies.copy()
    for own, width in zip(slices(analysis), widths, strict=True):
        live = np.flatnonzero(copies[own])
        if not len(live):
            continue
        if width < len(live):
            live = live[:width]
        result[own] = np.bincount(live[np.arange(width) % len(live)], minlength=own.stop - own.start)
    return result


def slices(analysis: Analysis) -> Iterator[slice]:
    """Where the channels of each group stand in arrays of ``[channels + 1]``."""
    return (slice(g.start + 1, g.start + 1 + g.width) for g in analysis.groups)
