"""When what should be reached in a training, in steps of the optimizer."""

from __future__ import annotations

from dataclasses import dataclass

FIRST, LAST = 0.70, 0.90  # of the planned steps: when the first channels are due, and the last
AT_FIRST = 1 / 12  # of the way
WINDOW, SHORT = 0.05, 0.05  # of the planned steps


@dataclass(frozen=True)
class Schedule:
    """When what should be reached, in optimizer steps.

    The strength ramps up until ``warmup``; no channel goes before. A twelfth of the way, in log cost, is due at
    ``first``, the rest evenly until ``last``. The first is late: the longer all channels have learnt, the better what
    they say tells which are needed, and the better the weights of those that stay. A channel whose scale is gone
    says what it still says ``fade`` steps longer, and ever less of it. Aimed at is what is due ``window`` steps later.
    """

    steps: int
    warmup: int
    first: int
    last: int
    window: int
    fade: int

    @staticmethod
    def of(steps: int) -> Schedule:
        """The default over `steps` planned steps: all is over at 100 %."""
        short, window = max(1, round(steps * SHORT)), max(1, round(steps * WINDOW))
        first, last = max(1, round(steps * FIRST)), max(1, round(steps * LAST))
        return Schedule(steps, short, first, last, window, short)

    @property
    def refresh(self) -> int:
        """Every so many steps the penalty is applied, for all of them at once: a tenth of the window, 1 to 10."""
        return min(max(1, self.steps // 200), 10)

    def progress(self, step: float) -> float:
        """The share of the way, in log cost, that is due at a step.

        >>> [round(Schedule.of(100).progress(step), 3) for step in (69, 70, 90, 100)]
        [0.0, 0.083, 1.0, 1.0]
        """
        if step < self.first:
            return 0.0
        return min(1.0, AT_FIRST + (1 - AT_FIRST) * (step - self.first) / max(1, self.last - self.first))

    def due(self, progress: float) -> float:
        """The step at which that share of the way is due; of what is never due, the last."""
        beyond = max(0.0, progress - AT_FIRST) / (1 - AT_FIRST)
        return self.first + beyond * (self.last - self.first)

    def target(self, step: int) -> int:
        """The step that is aimed at: a window ahead, not before the first channels are due and not after the last."""
        return min(max(step + self.window, self.first), self.last)

    def pace(self, step: int, progress: float) -> float:
        """The share of what is left to the target that step number `step` (from 1) has to do, at most 1.

        At least a quarter of the window is taken to be left. Where less of the way is done than is due (`progress`),
        the pace doubles with every half of the window that it is late.
        """
        late = step - self.due(progress) if progress < self.progress(step) else 0.0
        haste = float(2 ** min(max(0.0, late) / max(1.0, self.window / 2), 60))
        left = max(self.target(step) - step, self.window / 4, 1.0)
        return min(1.0, step / self.warmup) * min(1.0, haste / left)
