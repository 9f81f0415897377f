"""How hard to charge, and which channels go: the strength is steered so that the budget is met at the planned step.

NumPy on arrays of one entry per channel, numbered as in an `Analysis`: entry 0 stands for what is always alive.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.blocks import SLACK, first_blocks, rising, savings, together
from onnxmorph.budget import Budget, out_of_reach
from onnxmorph.errors import StructureError
from onnxmorph.knapsack import Knapsack
from onnxmorph.penalty import charges, mean_one, shrink_factors
from onnxmorph.polynomial import Widths
from onnxmorph.schedule import Schedule
from onnxmorph.widths import Grid, keep_best
from onnxmorph.worth import weights, worth

LIVE = -1  # in Controller.fading
GAIN = 0.3  # of the step in log strength that is made at once: single channels that go make it jump
RETURN = 4  # times what a channel is charged: what the loss must give it meanwhile for it to come back
LATE = 0.95  # of the planned steps
NARROW = 16  # a group with one in so many of its channels left has nearly vanished
DECADE = 10  # between magnitudes: a gap as wide as this parts the dead from the living


def gap(magnitudes: Floats) -> float:
    """What parts the dead from the living: the middle of the widest gap between magnitudes, if that is a decade.

    Where there is none, only exact zeros are dead: 0.

    >>> round(gap(np.array([0.9, 0.002, 0.4, 0.001])), 3)
    0.028
    """
    found = np.sort(magnitudes[magnitudes > 0])
    if len(found) < 2:
        return 0.0
    widest = int((found[1:] / found[:-1]).argmax())
    low, high = found[widest], found[widest + 1]
    return float(np.sqrt(low * high)) if high >= DECADE * low else 0.0


def _lasts(magnitudes: Floats, speed: Floats) -> Floats:
    """How many steps of a penalty of strength 1: magnitude / speed; for ever at speed 0."""
    lasts: Floats = np.divide(magnitudes, speed, out=np.full(len(speed), np.inf), where=speed > 0)
    return lasts


class Controller:
    """Steers the strength so that the budget is met at the planned step, and decides which channels go.

    Channels go in the order of what they are worth over what they cost: what the loss changes without them where that
    is measured (`saliency`), else what they say of their group (`worth`). A unit of magnitude is charged the
    price p of its group: its part of the marginal cost, over what it is worth while few go. So a channel of magnitude
    m and learning rate a loses a·λ·p per step, and lasts r / λ steps with r = m / (a·p). The plan says what the
    network may cost a window ahead, and the exact cost polynomial how many have to go until then. With r* of the one
    of these that lasts longest, λ = r* / (steps left) makes it vanish in time. Nothing is tuned: at first λ is what it
    takes if the loss were flat; where the loss resists, the cost falls behind the plan and λ grows with the delay.
    Scaling magnitudes, learning rates or costs changes nothing. Never do more channels go than the plan needs.

    A channel that went may come back as long as it is heard, where the loss pulls it back harder than it is charged
    (`RETURN` times, so that noise does not) and the cost stays within the plan.

    Attributes:
        strength: λ, what the next penalty is multiplied with; 0 once the budget is met.
        price: of a unit of magnitude, ``[channels + 1]``, of mean 1 over live channels that may go.
        fading: per channel: -1 alive, k > 0 gone but heard for k more steps, 0 dead.
        returned: how many channels came back.
        warnings: what a user should know before it happens; whoever shows them empties the list.
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
        self.analysis, self.budget, self.schedule, self.shrinks = analysis, budget, schedule, shrinks
        self.limits = budget.absolute(analysis)
        self.full = {name: analysis.costs[name].value(analysis.widths) for name in self.limits}
        self.weight = weights(analysis)
        self.prunable, self.lingers = prunable & (analysis.widths > analysis.minimum), lingers
        smallest = np.where(self.prunable, analysis.minimum, analysis.widths)
        if not budget.met(analysis, smallest):
            raise out_of_reach(analysis, budget, smallest)
        self.step, self.strength, self.returned = 0, 0.0, 0
        self.fading = np.full(analysis.channels + 1, LIVE, np.int64)
        binding = [name for name, most in self.limits.items() if most < self.full[name]]
        self._rising = rising(analysis, binding) & self.prunable
        self._block = np.arange(analysis.channels + 1)  # those with the same number go together
        self.warnings: list[str] = []
        self._told = np.zeros(len(analysis.groups) + 1, bool)  # of groups that vanish; of the budget
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
    def progress(self) -> float:
        """The share of the way to the budget that is done, in log cost; of several limits the least."""
        done = [
            np.log(self.full[n] / (self.analysis.costs[n].value(self.widths) or 1)) / np.log(self.full[n] / (most or 1))
            for n, most in self.limits.items()
            if most < self.full[n]
        ]
        return float(min(done, default=1.0))

    def _planned(self, step: int) -> Mapping[str, float]:
        """The limits at a step: full · (limit / full)^progress, so that every step is the same factor."""
        done = self.schedule.progress(step)
        return {
            n: most if done == 1 or most >= self.full[n] else self.full[n] * ((most or 1) / self.full[n]) ** done
            for n, most in self.limits.items()
        }

    @property
    def done(self) -> bool:
        """Whether the budget is met and nothing that went is heard any more."""
        return self.met and not (self.fading > 0).any()

    def aim(
        self, magnitudes: Floats, rates: Floats, steps: int = 1, says: Floats | None = None
    ) -> tuple[Array, Array, Floats]:
        """Set the strength for the coming steps.

        Args:
            magnitudes: of every channel, ``[channels + 1]``.
            rates: how far a unit of penalty gradient moves it (a learning rate), ``[channels + 1]``; at rate 0
                it stays as it is.
            steps: how many are taken at once.
            says: what the loss changes without each, ``[channels + 1]``, where that is known.

        Returns:
            the channels that are due to go next, those that set the strength; others that go once these are gone, to
            use up the budget; r of every channel, ``[channels + 1]``.
        """
        if self.shrinks:
            self.price = self._of_channels(self._relative(magnitudes))
        lasts = _lasts(magnitudes, rates * self.price)
        speed = np.where(rates > 0, self._of_channels(self._marginal), 0.0)
        each = self._worth(magnitudes, rates, says)
        by = _lasts(each, speed)
        if self._rising.any():
            by, self._block = together(self.analysis, self._savings, each, self._may & (rates > 0), by)
        self._first = self._order(by)
        leaving, fillers = self._leaving(self._first, self._planned(self.schedule.target(self.step + steps)))
        pace = self.schedule.pace(self.step + steps, self.progress)
        last = lasts[leaving]
        wanted = float(last[np.isfinite(last)].max(initial=0.0)) * min(pace, 1 / steps)
        steady = self.strength > 0 < wanted and self.step >= self.schedule.warmup
        self.strength = self.strength ** (1 - GAIN) * wanted**GAIN if steady else wanted
        return leaving, fillers, lasts

    def update(
        self, magnitudes: Floats, rates: Floats, steps: int = 1, says: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """What the penalty does, after the optimizer's steps.

        Args:
            magnitudes: of every channel, ``[channels + 1]``.
            rates: as for `aim`.
            steps: of the optimizer since the last update, taken as one: its threshold is so many times as large.
            says: as for `aim`.

        Returns:
            factors for the parameters that make up the magnitudes, and for what else the channel says; both
            ``[channels + 1]``, 0 exactly where it is to be silent.
        """
        factors = np.ones(len(self.fading))
        if not self.met:
            leaving, fillers, lasts = self.aim(magnitudes, rates, steps, says)
            self._warn(np.append(leaving, fillers), rates)
            empty = lasts <= self.strength * steps
            if self.shrinks:  # but what would be emptied: it goes, or (others are enough) it stays as it is
                shrunk = self.alive & ~empty & (self._charged(lasts) if says is None else self._due())
                factors = shrink_factors(lasts, np.where(shrunk, self.strength * steps, 0.0))
            else:
                empty |= magnitudes <= gap(magnitudes[self._may])
            if self.step >= self.schedule.warmup:
                ready, owner = empty[leaving], self.analysis.group_of[leaving]
                ready &= ~np.isin(owner, owner[~ready & self._rising[owner]])  # whole steps or none
                self._remove(leaving[ready] if not ready.all() else np.append(leaving, fillers))
            if says is not None:  # a large magnitude keeps no channel longer than the plan has it
                still = self._first[self.alive[self._first]]
                self._remove(np.concatenate(self._leaving(still, self._planned(self.step))))
            if not self.met:
                self._take_back(lasts, steps)
        rest = np.ones(len(factors))
        heard = self.fading > 0
        after = np.maximum(self.fading[heard] - steps, 0)
        rest[heard] = after / self.fading[heard]  # k/K → (k-1)/K: a straight line to 0
        self.fading[heard] = after
        self.step += steps
        factors[~self.alive] = 0.0
        rest[self.fading == 0] = 0.0
        if self.met:
            self.strength = 0.0
        return factors, rest

    def finish(self, magnitudes: Floats, rates: Floats, says: Floats | None = None) -> None:
        """Meet the budget now: of what lives, those channels stay that are worth most together (`knapsack`).

        Arguments as for `aim`. What the loss says is squared: of many channels that go at once, some make it larger and
        some smaller, so that squares add up.
        """
        if not self.met:
            each = self._worth(magnitudes, rates, says) if says is None else says**2
            each = np.where(self.alive, each, 0.0)
            low = np.where(self.prunable, np.minimum(self.analysis.minimum, self.widths), self.widths)
            grid = Grid(np.ones_like(self.widths), low, self.widths)
            choice = Knapsack.of(self.analysis, each, self.budget, grid)
            widths = choice.descend()
            widths = choice.improve(widths if choice.fits(widths) else low)
            stays = keep_best(self.analysis, np.where(self.alive, each, -1.0), widths) > 0
            self._remove(np.flatnonzero(self.alive & ~stays))
        self.fading[~self.alive] = 0
        self.strength = 0.0

    def state(self) -> dict[str, Any]:
        """Plain numbers and lists, for a checkpoint."""
        return {
            "model": self.analysis.graph.fingerprint,
            "step": self.step,
            "strength": self.strength,
            "returned": self.returned,
            "fading": self.fading.tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`. Raises StructureError where it belongs to another model."""
        if state["model"] != self.analysis.graph.fingerprint or len(state["fading"]) != len(self.fading):
            raise StructureError(
                "the checkpoint is of another model; load the one saved with this model", code="checkpoint"
            )
        self.step, self.strength, self.returned = state["step"], state["strength"], state["returned"]
        self.fading = np.array(state["fading"], np.int64)
        self._refresh()

    def _refresh(self) -> None:
        """Widths and prices of the live set."""
        owner = self.analysis.group_of[1:][self.alive[1:]]
        self.widths: Widths = np.bincount(owner, minlength=len(self.analysis.groups)).astype(np.int64)
        self._marginal, factors = charges(self.analysis, self.limits, self.widths, self.prunable)
        self.price = self._of_channels(self._marginal)
        if self._rising.any():
            self._savings = savings(self.analysis, factors, self.widths, self._rising)

    def _of_channels(self, each: Floats) -> Floats:
        """``[groups] -> [channels + 1]``; channel 0 has 0."""
        return np.append(each, 0.0)[self.analysis.group_of]

    def _relative(self, magnitudes: Floats) -> Floats:
        """Prices of a magnitude as a share of what its group says, times the weight of the group, ``[groups]``."""
        owner = self.analysis.group_of[self.alive]
        total = np.bincount(owner[1:], magnitudes[self.alive][1:], len(self.weight))
        charged = self._marginal > 0
        each = np.divide(self._marginal * total, self.weight, out=np.zeros_like(total), where=charged)
        return mean_one(each, np.where(self.prunable, self.widths, 0))

    def _worth(self, magnitudes: Floats, rates: Floats, says: Floats | None) -> Floats:
        """What channels are worth, ``[channels + 1]``; to the published penalty it is what they say.

        Magnitudes count in steps of their learning rate; where that is 0, in steps of the mean rate.
        """
        if says is not None:
            return says
        mean = float(rates[rates > 0].mean()) if (rates > 0).any() else 1.0
        each = worth(self.analysis, magnitudes, self.alive, self.weight) if self.shrinks else magnitudes
        return each / np.where(rates > 0, rates, mean)

    def _within(self, widths: Widths, limits: Mapping[str, float]) -> bool:
        return all(self.analysis.costs[name].value(widths) <= most for name, most in limits.items())

    @property
    def _may(self) -> Mask:
        """The live channels that may go, ``[channels + 1]``."""
        may: Mask = self.alive & np.append(self.prunable, False)[self.analysis.group_of]
        return may

    def _order(self, by: Floats) -> Array:
        """Live channels that may go, ascending; the last of every group stay, as many as its least width."""
        channels = np.flatnonzero(self._may & np.isfinite(by))
        order: Array = channels[np.lexsort((self._block[channels], by[channels]))]
        owner = self.analysis.group_of[order][::-1]
        by_group = np.argsort(owner, kind="stable")
        from_last = np.empty_like(order)
        from_last[by_group] = np.arange(len(owner)) - np.searchsorted(owner[by_group], owner[by_group])
        others = self.widths - np.bincount(owner, minlength=len(self.widths))  # that do not go
        return order[(from_last + others[owner] >= self.analysis.minimum[owner])[::-1]]

    def _charged(self, lasts: Floats) -> Mask:
        """The channels that the penalty shrinks where their magnitudes decide which go, ``[channels + 1]``.

        Scales shrink all together: norms behind them keep the function, and the loss picks those that it needs. Slices
        and gates have nothing behind them that makes up for it: there only those shrink that would go by now if the
        budget had to be met.
        """
        charged = np.isfinite(lasts)
        if not self.lingers.all():
            charged &= np.append(self.lingers, False)[self.analysis.group_of] | self._due()
        return charged

    def _due(self) -> Mask:
        """The channels that would go by now if the budget had to be met, ``[channels + 1]``."""
        due = np.zeros(len(self.fading), bool)
        due[np.concatenate(self._leaving(self._first, self.limits))] = True
        return due

    def _leaving(self, order: Array, limits: Mapping[str, float]) -> tuple[Array, Array]:
        """The first channels of an order, as few as meet the limits; all where that is not enough.

        Where the last of them would leave more than `SLACK` of the budget unused, later channels that save less
        go in its place, and come apart; where none leaves so little, the one that leaves least.
        """
        if self._rising.any():
            return first_blocks(self.analysis, order, self._block, self.widths, limits, self.limits), order[:0]
        owner, groups = self.analysis.group_of[order], len(self.widths)
        low, high = 0, len(order)
        while low < high:  # the cost falls with every channel, so bisection finds it
            middle = (low + high) // 2
            met = self._within(self.widths - np.bincount(owner[:middle], minlength=groups), limits)
            low, high = (low, middle) if met else (middle + 1, high)
        widths = self.widths - np.bincount(owner[:high], minlength=groups)
        used = self._used(widths)
        if not high or used >= 1 - SLACK:
            return order[:high], order[:0]
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
        return order[best[: high - 1]], order[best[high - 1 :]]

    def _used(self, widths: Widths) -> float:
        """The share of the budget that these widths use; of several limits the tightest."""
        return max(self.analysis.costs[name].value(widths) / (most or 1) for name, most in self.limits.items())

    def _remove(self, channels: Array) -> None:
        if len(channels):
            lingers = self.lingers[self.analysis.group_of[channels]]
            self.fading[channels] = np.where(lingers, self.schedule.fade, 0)
            self._refresh()

    def _take_back(self, lasts: Floats, steps: int) -> None:
        """Let channels return that the loss pulls back, those it pulls hardest first, as far as the plan allows.

        Not to groups whose cost falls in steps: one channel would cost a whole one.
        """
        pulled = (self.fading > 0) & np.isfinite(lasts) & (lasts > RETURN * self.strength * steps)
        pulled &= ~np.append(self._rising, False)[self.analysis.group_of]
        order = np.flatnonzero(pulled)
        order = order[np.argsort(-lasts[order], kind="stable")]
        owner, limits = self.analysis.group_of[order], self._planned(self.step + steps)
        few, many = 0, len(order)  # as many as are within the limits
        while few < many:
            middle = (few + many + 1) // 2
            widths = self.widths + np.bincount(owner[:middle], minlength=len(self.widths))
            few, many = (middle, many) if self._within(widths, limits) else (few, middle - 1)
        if few:
            self.fading[order[:few]] = LIVE
            self.returned += few
            self._refresh()

    def _warn(self, leaving: Array, rates: Floats) -> None:
        """Say what comes: groups that nearly vanish next, a budget that cannot be met."""
        analysis, groups = self.analysis, self.analysis.groups
        after = self.widths - np.bincount(analysis.group_of[leaving], minlength=len(groups))
        least = np.maximum(analysis.minimum, analysis.widths // NARROW)
        for g in np.flatnonzero((after <= least) & (self.widths > after) & ~self._told[:-1]).tolist():
            self._told[g] = True
            self.warnings.append(
                f"step {self.step}: group {groups[g].id!r} is about to be left with {after[g]} of its "
                f"{groups[g].width} channels; min_width or keep in bounds would stop that"
            )
        steps = self.schedule.steps
        on_time = self._within(after, self._planned(self.schedule.target(self.step + 1))) and self.step < LATE * steps
        if self._told[-1] or on_time:
            return
        self._told[-1] = True
        still = analysis.group_of[self._may & (rates == 0)]
        why = f"learning rate 0, as in {groups[still[0]].id!r}" if len(still) else "the loss holds on to its channels"
        self.warnings.append(
            f"step {self.step} of {steps}: the budget may not be met in time: {why}. Give it learning rate or steps, "
            "or meet it at the end with finish()"
        )
