"""What a channel is charged, and how hard: prices, the penalty and its proximal step, the controller.

MorphNet's regulariser C·(alive_in·Σ|γ_out| + alive_out·Σ|γ_in|) is Σ price × |magnitude| over all channels,
with price = ∂cost/∂width (arXiv 1711.06798, equation 5). Everything here is NumPy on arrays of one entry per
channel, numbered as in an `Analysis`: entry 0 stands for what is always alive. A framework supplies the
magnitudes and learning rates and multiplies its parameters by the factors it is handed back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.budget import Budget, out_of_reach
from onnxmorph.errors import StructureError
from onnxmorph.polynomial import Number, Widths

LIVE = -1  # in Controller.fading
MILESTONES = 12
SLACK = 0.02  # of a limit
NEGLIGIBLE = 0.01  # of the first mean magnitude: where the published form calls a channel gone


def prices(analysis: Analysis, limits: Mapping[str, Number], widths: Widths, prunable: Mask) -> Floats:
    """The price of one channel of every group, ``[groups]``, of mean 1 over the live channels of prunable groups.

    A limit that is met charges nothing; several that are not are weighted by log(cost / limit). So neither
    the unit of a cost nor the size of the network enters, only the ratios of the marginal costs.

    Args:
        analysis: gives the costs.
        limits: the largest value allowed, per cost name.
        widths: the live widths, ``[groups]``.
        prunable: which groups may lose channels, ``[groups]``; the others are free of charge.
    """
    live = np.where(prunable, widths, 0)
    total = np.zeros(len(widths))
    for name, most in limits.items():
        cost = analysis.costs[name].value(widths)
        if cost > most:
            each = np.where(prunable, analysis.costs[name].gradient(widths), 0).astype(float)
            total += np.log(cost / (most or 1)) * _mean_one(each, live)
    return _mean_one(total, live)


def _mean_one(values: Floats, weights: Widths) -> Floats:
    mean = float(values @ weights) / max(int(weights.sum()), 1)
    return values / mean if mean > 0 else np.zeros_like(values)


def combine(sources: Floats, how: str = "rms") -> Floats:
    """The magnitude of channels that have several sources, ``[channels, sources] -> [channels]``.

    ``rms`` is √mean s²; ``max`` is the published rule for channels that meet in a residual sum.
    """
    size = np.abs(np.asarray(sources, float))
    found: Floats = size.max(1) if how == "max" else np.sqrt((size**2).mean(1))
    return found


def penalty(price: Floats, magnitudes: Floats, strength: float = 1.0) -> float:
    """``strength · Σ price · |magnitude|`` over channels; both arrays are ``[channels]``."""
    return strength * float(np.asarray(price) @ np.abs(magnitudes))


def shrink_factors(magnitudes: Floats, thresholds: Floats) -> Floats:
    """``max(0, 1 − threshold / magnitude)``, ``[channels]``; 0 where the magnitude is 0 and the threshold is not."""
    ratio = np.divide(thresholds, magnitudes, out=np.full(len(thresholds), np.inf), where=magnitudes > 0)
    return np.where(thresholds > 0, np.maximum(0.0, 1.0 - ratio), 1.0)


def proximal(sources: Floats, thresholds: Floats) -> Floats:
    """One step towards a smaller penalty: the group soft-threshold, ``[channels, sources]``.

    s ← s · max(0, 1 − threshold / rms(s)), which for one source is sign(s) · max(|s| − threshold, 0).
    The threshold of a channel is learning rate · strength · price.

    >>> proximal(np.array([[3.0], [-0.5]]), np.array([1.0, 1.0])).ravel().tolist()
    [2.0, -0.0]
    """
    return sources * shrink_factors(combine(sources), thresholds)[:, None]


def _lasts(magnitudes: Floats, speed: Floats) -> Floats:
    """How many steps of a penalty of strength 1: magnitude / speed; for ever at speed 0."""
    lasts: Floats = np.divide(magnitudes, speed, out=np.full(len(speed), np.inf), where=speed > 0)
    return lasts


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


class Controller:
    """Steers the strength so that the budget is met at the planned step, and decides which channels go.

    A channel of magnitude m, learning rate a and price p loses a·λ·p per step, so it lasts r / λ steps with
    r = m / (a·p). In the order of r the channels vanish; the exact cost polynomial says how many have to until
    the next milestone. With r* of the last of these, λ = r* / (steps left) makes it vanish in time. Nothing is
    tuned: at first λ is what it takes if the loss were flat; where the loss resists, less was done than
    planned and λ grows, at every step. Scaling magnitudes, learning rates or costs changes nothing. Never do
    more channels go than the milestone needs.

    Attributes:
        strength: λ, what the next penalty is multiplied with; 0 once the budget is met.
        price: per channel, ``[channels + 1]``, of mean 1 over live channels that may go.
        fading: per channel: -1 alive, k > 0 gone but heard for k more steps, 0 dead.
    """

    def __init__(
        self,
        analysis: Analysis,
        budget: Budget,
        schedule: Schedule,
        prunable: Mask,
        lingers: Mask,
        shrinks: bool = True,
    ) -> None:
        """Start with every channel alive.

        Args:
            analysis: of the network.
            budget: what the network may cost at the end.
            schedule: the planned steps.
            prunable: the groups that may lose channels, ``[groups]``; each keeps at least one, or what bounds ask for.
            lingers: the groups whose magnitude is not all they say, ``[groups]``: their channels fade.
            shrinks: whether factors shrink what lives; otherwise a penalty in the loss does that.

        Raises:
            BudgetError: even the least width of every prunable group costs more.
        """
        self.analysis, self.schedule, self.shrinks = analysis, schedule, shrinks
        self.limits = budget.absolute(analysis)
        self.full = {name: analysis.costs[name].value(analysis.widths) for name in self.limits}
        self.prunable, self.lingers = prunable & (analysis.widths > analysis.minimum), lingers
        smallest = np.where(self.prunable, analysis.minimum, analysis.widths)
        if not budget.met(analysis, smallest):
            raise out_of_reach(analysis, budget, smallest)
        self.step, self.strength, self.first_mean = 0, 0.0, 0.0
        self.fading = np.full(analysis.channels + 1, LIVE, np.int64)
        self._refresh()

    @property
    def alive(self) -> Mask:
        """``[channels + 1]``."""
        alive: Mask = self.fading == LIVE
        return alive

    @property
    def met(self) -> bool:
        """Whether the live widths satisfy the budget."""
        return self._within(self.widths, self.limits)

    @property
    def milestone(self) -> int:
        """The number of the first milestone that is not reached; the last where all are."""
        count = len(self.schedule.milestones)
        return next((k for k in range(count) if not self._within(self.widths, self._planned(k))), count - 1)

    def _planned(self, milestone: int) -> Mapping[str, float]:
        """The limits at a milestone: full · (limit / full)^progress, so that every step is the same factor."""
        done = self.schedule.progress(milestone)
        return {
            n: most if done == 1 or most >= self.full[n] else self.full[n] * ((most or 1) / self.full[n]) ** done
            for n, most in self.limits.items()
        }

    @property
    def done(self) -> bool:
        """Whether the budget is met and nothing that went is heard any more."""
        return self.met and not (self.fading > 0).any()

    def aim(self, magnitudes: Floats, rates: Floats) -> tuple[Array, Floats]:
        """Set the strength for the coming step.

        Args:
            magnitudes: of every channel, ``[channels + 1]``.
            rates: how far a unit of penalty gradient moves it (a learning rate), ``[channels + 1]``; at rate 0
                it stays as it is.

        Returns:
            the channels that have to go until the next milestone; r of every channel, ``[channels + 1]``.
        """
        self.first_mean = self.first_mean or float(magnitudes[1:].mean())
        lasts = _lasts(magnitudes, rates * self.price)
        milestone = self.milestone
        leaving = self._leaving(self._order(lasts), self._planned(milestone))
        pace = self.schedule.pace(self.step + 1, milestone)
        self.strength = float(lasts[leaving].max(initial=0.0)) * pace
        return leaving, lasts

    def update(self, magnitudes: Floats, rates: Floats) -> tuple[Floats, Floats]:
        """One step, after the optimizer's.

        Args:
            magnitudes: of every channel, ``[channels + 1]``.
            rates: as for `aim`.

        Returns:
            factors for the parameters that make up the magnitudes, and for what else the channel says; both
            ``[channels + 1]``, 0 exactly where it is to be silent.
        """
        factors = np.ones(len(self.fading))
        if not self.met:
            leaving, lasts = self.aim(magnitudes, rates)
            factors = shrink_factors(lasts, np.where(np.isfinite(lasts), self.strength, 0.0))
            # What would be emptied is not shrunk: it goes, or (others are enough) it stays as it is.
            empty = lasts <= self.strength
            factors = np.where(self.alive & ~empty, factors, 1.0) if self.shrinks else np.ones(len(factors))
            if not self.shrinks:
                empty |= magnitudes <= NEGLIGIBLE * self.first_mean
            if self.step >= self.schedule.warmup:
                self._remove(leaving[empty[leaving]])
        rest = np.ones(len(factors))
        heard = self.fading > 0
        rest[heard] = (self.fading[heard] - 1) / self.fading[heard]  # k/K → (k-1)/K: a straight line to 0
        self.fading[heard] -= 1
        self.step += 1
        factors[~self.alive] = 0.0
        rest[self.fading == 0] = 0.0
        if self.met:
            self.strength = 0.0
        return factors, rest

    def finish(self, magnitudes: Floats, rates: Floats) -> None:
        """Meet the budget now: of what is left, the channels that would vanish first go at once."""
        for speed in (rates * self.price, self.price):  # the second where too few channels have a rate
            if not self.met:
                self._remove(self._leaving(self._order(_lasts(magnitudes, speed)), self.limits))
        self.fading[~self.alive] = 0
        self.strength = 0.0

    def state(self) -> dict[str, Any]:
        """Plain numbers and lists, for a checkpoint."""
        return {
            "model": self.analysis.graph.fingerprint,
            "step": self.step,
            "strength": self.strength,
            "first_mean": self.first_mean,
            "fading": self.fading.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`. Raises StructureError where it belongs to another model."""
        if state["model"] != self.analysis.graph.fingerprint or len(state["fading"]) != len(self.fading):
            raise StructureError(
                "the checkpoint is of another model; load the one saved with this model", code="checkpoint"
            )
        self.step, self.strength, self.first_mean = state["step"], state["strength"], state["first_mean"]
        self.fading = np.array(state["fading"], np.int64)
        self._refresh()

    def _refresh(self) -> None:
        """Widths and prices of the live set."""
        owner = self.analysis.group_of[1:][self.alive[1:]]
        self.widths: Widths = np.bincount(owner, minlength=len(self.analysis.groups)).astype(np.int64)
        per_group = prices(self.analysis, self.limits, self.widths, self.prunable)
        self.price: Floats = np.append(per_group, 0.0)[self.analysis.group_of]  # group -1: channel 0

    def _within(self, widths: Widths, limits: Mapping[str, float]) -> bool:
        return all(self.analysis.costs[name].value(widths) <= most for name, most in limits.items())

    def _order(self, by: Floats) -> Array:
        """Live channels that may go, ascending; the last of every group stay, as many as its least width."""
        may = self.alive & np.append(self.prunable, False)[self.analysis.group_of] & np.isfinite(by)
        channels = np.flatnonzero(may)
        order: Array = channels[np.argsort(by[channels], kind="stable")]
        owner = self.analysis.group_of[order][::-1]
        by_group = np.argsort(owner, kind="stable")
        from_last = np.empty_like(order)
        from_last[by_group] = np.arange(len(owner)) - np.searchsorted(owner[by_group], owner[by_group])
        return order[(from_last >= self.analysis.minimum[owner])[::-1]]

    def _leaving(self, order: Array, limits: Mapping[str, float]) -> Array:
        """The first channels of an order, as few as meet the limits; all where that is not enough.

        Where the last of them would leave more than `SLACK` of the budget unused, later channels that save less
        go in its place; where none leaves so little, the one that leaves least.
        """
        owner, groups = self.analysis.group_of[order], len(self.widths)
        low, high = 0, len(order)
        while low < high:  # the cost falls with every channel, so bisection finds it
            middle = (low + high) // 2
            met = self._within(self.widths - np.bincount(owner[:middle], minlength=groups), limits)
            low, high = (low, middle) if met else (middle + 1, high)
        widths = self.widths - np.bincount(owner[:high], minlength=groups)
        used = self._used(widths)
        if not high or used >= 1 - SLACK:
            return order[:high]
        widths[owner[high - 1]] += 1
        base, best, too_much = list(range(high - 1)), list(range(high)), {int(owner[high - 1])}
        for k in range(high, len(order)):
            g = int(owner[k])
            if g in too_much:
                continue
            widths[g] -= 1
            now = self._used(widths)
            met = self._within(widths, limits)
            if met and now > used:
                best, used = [*base, k], now
            if used >= 1 - SLACK:
                break
            if now < 1 - SLACK:
                widths[g] += 1
                too_much.add(g)
            else:
                base.append(k)
        return order[best]

    def _used(self, widths: Widths) -> float:
        """The share of the budget that these widths use; of several limits the tightest."""
        return max(self.analysis.costs[name].value(widths) / (most or 1) for name, most in self.limits.items())

    def _remove(self, channels: Array) -> None:
        if len(channels):
            lingers = self.lingers[self.analysis.group_of[channels]]
            self.fading[channels] = np.where(lingers, self.schedule.fade, 0)
            self._refresh()
