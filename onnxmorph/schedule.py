"""When what should be reached in a training, in steps of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MILESTONES = 12


@dataclass(frozen=True)
class Schedule:
    """When what should be reached, in optimizer steps.

    The strength ramps up until ``warmup``; no channel goes before. Then the cost has to fall by equal factors,
    one per milestone. The first is late: until then the scales shrink together, and the weights behind them
    make up for it; only near zero does the loss tell channels apart. A channel whose scale is gone says what
    it still says ``fade`` steps longer, and ever less of it.
    """

    steps: int
    warmup: int
    milestones: tuple[int, ...]
    fade: int

    @staticmethod
    def of(steps: int) -> Schedule:
        """The default over `steps` planned steps: milestones from 30 % to 85 %, so that all is over at 100 %."""
        milestones = sorted({max(1, round(steps * share)) for share in np.linspace(0.30, 0.85, MILESTONES)})
        short = max(1, round(steps * 0.05))
        return Schedule(steps, short, tuple(milestones), short)

    @property
    def refresh(self) -> int:
        """Every so many steps the penalty is applied, for all of them at once: a tenth of a milestone, 1 to 10."""
        return min(max(1, self.steps // 200), 10)

    def progress(self, milestone: int) -> float:
        """The share of the way (in log cost) that is done at a milestone."""
        return (milestone + 1) / len(self.milestones)

    def pace(self, step: int, milestone: int) -> float:
        """The share of what is left to a milestone that step number `step` (from 1) has to do, at most 1.

        The pace is set as if at least a quarter of the way between milestones were left; beyond the milestone
        it doubles in every such quarter.
        """
        spacing = (self.milestones[-1] - self.milestones[0]) / max(1, len(self.milestones) - 1)
        tail, left = max(1.0, spacing / 4), self.milestones[milestone] - step
        haste = float(2 ** min(max(0, -left) / tail, 60))
        return min(1.0, step / self.warmup) * min(1.0, haste / max(left, tail))
