"""What channels are worth together: those of one group can stand in for each other, those of different groups cannot.

A sum of importances, kept under a limit of what it costs, has its most at corners: all of one group, one channel of
another, because costs are products of widths. Real networks are not like that; the last channels of a layer matter
more than the first that go. So what is kept most of here is

    Σ over groups  weight · log(what its live channels say / what all of them say)

which no group can be emptied under, and which needs no unit: what a layer's channels say counts as shares of the layer.
The weight of a group is its part in what the whole network costs: the share of it that is saved, to first order, if the
group goes (an elasticity). Where all channels of every group say the same and costs are products of two widths, the
best widths are then the full ones times one number, the width multiplier: whoever drew the network spent on every layer
what it was worth. What channels say moves the widths away from there: a group of which few channels say most is
narrowed further. And the weights that are used here are parts in FLOPs and in parameters alike, so that a group which
costs more in what is limited than in general is narrowed first.
"""

from __future__ import annotations

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Floats, Mask

TINY = 1e-100
LAST = 1e3  # in place of the logarithm that leaves nothing


def weights(analysis: Analysis, costs: tuple[str, ...] = ("flops", "params")) -> Floats:
    """Of every group, ``[groups]``: width · ∂cost/∂width / cost, the mean over costs."""
    full = analysis.widths
    each = [analysis.costs[name].gradient(full) * full / (analysis.costs[name].value(full) or 1) for name in costs]
    mean: Floats = np.maximum(np.mean(each, 0), TINY)
    return mean


def worth(analysis: Analysis, says: Floats, live: Mask, weight: Floats) -> Floats:
    """How much less is kept without a channel and all live ones of its group that say less, ``[channels + 1]``.

    So these add up: what a group keeps is the sum over those of its channels that say most. Of a channel that does not
    live, how much more would be kept with it.

    Args:
        analysis: whose channels these are.
        says: how much every channel says, not negative, in any unit per group, ``[channels + 1]``.
        live: which channels there are, ``[channels + 1]``.
        weight: of every group, ``[groups]``.
    """
    group_of, live = analysis.group_of, live & (analysis.group_of >= 0)
    says = np.maximum(says, TINY)
    total = np.bincount(group_of[live], says[live], len(weight))
    found = np.log1p(says / np.append(np.maximum(total, TINY), 1.0)[group_of])
    order = np.flatnonzero(live)
    order = order[np.lexsort((says[order], group_of[order]))][::-1]  # the last group first; those that say most first
    owner = group_of[order]
    size = says[order] / total[owner]
    starts = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))[: len(order)]
    above = np.cumsum(size) - size  # what those say that say more
    above -= np.repeat(above[starts], np.diff(np.append(starts, len(order))))  # of the same group
    found[order] = np.log1p(size / np.maximum(above, np.exp(-LAST / 2) * size))
    found[order[starts]] = LAST
    result: Floats = found * np.append(weight, 1.0)[group_of]
    return result
