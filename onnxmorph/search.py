"""Widths that meet a budget by one number that multiplies them all: scale and expand."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.budget import Budget, out_of_reach
from onnxmorph.polynomial import Widths, sweep
from onnxmorph.widths import Multiple, asked, holding, least, rewarded, steps

MUCH = 1000  # times as wide: past all steps of a cost
OMEGAS = 128  # multipliers that are looked at between the smallest and the largest


def _round(widths: Array, step: Widths, low: Widths, high: Widths | None) -> Widths:
    """Down to a multiple of the step, within bounds; a group narrower than its step stays as it is."""
    down = np.where(widths >= step, widths // step * step, low)
    down = np.maximum(down, low)
    return down if high is None else np.where(widths >= high, high, np.minimum(down, high))


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


def free(analysis: Analysis, widths: Widths, budget: Budget, step: Widths, high: Widths | None) -> Widths:
    """Widen every group to the next multiple that a cost rewards, where no limited cost rises."""
    widths, resources = widths.copy(), budget.resources(analysis).values()
    better = np.lcm(step, rewarded(analysis, budget))
    for g in np.flatnonzero((better > step) & (widths > 0)):
        wider = widths.copy()
        wider[g] = -(-widths[g] // better[g]) * better[g]
        wider[g] = wider[g] if high is None else min(wider[g], high[g])
        if wider[g] > widths[g] and all(r.value(wider) <= r.value(widths) for r in resources):
            widths = wider
    return widths


def _charged(analysis: Analysis, widths: Widths, budget: Budget) -> Mask:
    """The groups that cost more when they are much wider, ``[groups]``: no budget would ever end the growth of others.

    What a group meets may have gone with another one.
    """
    wider = widths + np.diag(widths) * MUCH
    costs = [(cost.value(widths), sweep(cost, wider)) for cost in budget.resources(analysis).values()]
    result: Mask = np.any([after > before for before, after in costs], axis=0)
    return result


def multiply(
    analysis: Analysis,
    base: Widths,
    budget: Budget,
    round_to: Multiple = 1,
    grow: bool = True,
    hold: Container[str] = (),
) -> tuple[float, Widths]:
    """The largest width multiplier found whose rounded widths satisfy the budget, and these widths.

    What rounding left over is then spent on the groups that rounding cut most. Groups that are one channel
    wide in the model do not grow, nor do those that cost nothing however wide; empty ones stay empty. Where a cost
    rises although widths fall, multipliers between those that are looked at may be missed; the widths satisfy the
    budget in any case.

    Args:
        analysis: of the original model.
        base: the widths to be multiplied, ``[groups]``.
        budget: the limits.
        round_to: widths become multiples of this, where the group is no outer factor; ``auto``: what costs reward.
        grow: whether widths may exceed those of the model.
        hold: ids of groups that stay as wide as in `base`.

    Raises:
        BudgetError: no multiplier was found whose widths cost so little.

    Source: MorphNet (arXiv 1711.06798), Algorithm 1, step 3.
    """
    step = steps(analysis, round_to, budget)
    smallest = least(analysis, step)
    low = np.where(base == 0, 0, np.maximum(np.minimum(smallest, base), asked(analysis, step)))
    alone = (analysis.widths == 1) | (base == 0)
    held = alone | np.array([g.id in hold for g in analysis.groups], bool)
    held |= ~_charged(analysis, base, budget)

    def widths(omega: float) -> Widths:
        raw = np.floor(base * omega + 1e-9).astype(np.int64)
        high = None if grow else analysis.widths
        return np.where(alone, np.minimum(base, 1), np.where(held, base, _round(raw, step, low, high)))

    def met(omega: float) -> bool:
        return budget.met(analysis, widths(omega))

    above = 1.0
    while above < 1e6 and (met(above) or met(above / 2)) and (grow or (widths(above) < analysis.widths).any()):
        above *= 2
    looked = [*(above * np.arange(OMEGAS, 0, -1) / OMEGAS).tolist(), 0.0]
    below = next((omega for omega in looked if met(omega)), None)
    if below is None:
        limits = budget.absolute(analysis).items()
        loads = np.max(
            [sweep(analysis.costs[n], np.stack([*map(widths, looked)])) / max(most, 1e-30) for n, most in limits], 0
        )
        raise out_of_reach(analysis, budget, widths(looked[int(loads.argmin())]), holding(analysis, smallest))
    above = below + above / OMEGAS
    for _ in range(60):
        middle = (below + above) / 2
        below, above = (middle, above) if met(middle) else (below, middle)
    found = widths(below)
    high = analysis.widths if not grow else np.where(held, found, np.iinfo(np.int64).max // 2)
    wish = (base * below - found) / np.maximum(found, 1)
    return below, free(analysis, fill(analysis, found, budget, step, high, wish), budget, step, high)
