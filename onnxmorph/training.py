"""Training with the penalty, but for the framework: what to measure, and what to do to which parameters.

An adapter reads norms and learning rates out of its framework, hands them to a `Training`, and carries out the
`Changes` that it gets back. All arrays are NumPy; parameters have the names of the analysis.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Floats
from onnxmorph.budget import Budget
from onnxmorph.channel_map import ChannelMap
from onnxmorph.controller import Controller
from onnxmorph.errors import BudgetError, TrainingError
from onnxmorph.magnitudes import Dead
from onnxmorph.polynomial import Number
from onnxmorph.saliency import Saliency
from onnxmorph.schedule import Schedule
from onnxmorph.structure import Structure

log = logging.getLogger("onnxmorph")


@dataclass(frozen=True)
class Changes:
    """What an adapter has to do to the parameters, in this order.

    Attributes:
        sources: factors for every position of ``map.sources.slices``, ``[positions]``; None where all are 1.
        rest: the same for ``map.rest``.
        buried: what died just now: zero it in the parameters, and in what the optimizer remembers of them, but for
            running squares of gradients (they divide a step, and make none).
    """

    sources: NDArray[np.float32] | None
    rest: NDArray[np.float32] | None
    buried: Dead


class Training:
    """A training towards a budget, as far as it needs no framework.

    Call `step` after every step of the optimizer; where it says so, measure and `update`. Zero `dead` at every step,
    and `dead_weights` now and then: they get no gradient, so that without momentum they stay zero by themselves.
    """

    def __init__(
        self, map: ChannelMap, budget: Budget, steps: int, *, shrinks: bool = True, listens: bool = False
    ) -> None:
        """Start with every channel alive.

        Args:
            map: where the channels are.
            budget: what the network may cost at the end.
            steps: planned steps of the optimizer.
            shrinks: whether factors shrink what lives; otherwise a penalty in the loss does that.
            listens: whether channels go by what the loss says of them, which is measured then; else by magnitudes.

        Raises:
            BudgetError: the budget is out of reach, or there are no steps.
        """
        if steps < 1:
            raise BudgetError("steps is how often step() will be called; give 1 or more", code="steps")
        self.map, self.budget, self.shrinks = map, budget, shrinks
        try:
            self.control = Controller(
                map.analysis, budget, Schedule.of(steps), map.prunable, map.lingers, shrinks=shrinks
            )
        except BudgetError as error:
            if not map.locked:
                raise
            group, reason = next(iter(map.locked.items()))
            more = f" and {len(map.locked) - 1} more groups" if len(map.locked) > 1 else ""
            message = f"{error}; locked is {group!r} ({reason}){more}"
            raise BudgetError(message, code="budget-reach") from None
        self.saliency = Saliency(map.analysis, map.trained) if listens else None
        self.pending = 0  # steps since the last update
        self.dead: Dead = []
        self.dead_weights: Dead = []
        self._buried = np.zeros(map.analysis.channels + 1, bool)

    @property
    def analysis(self) -> Analysis:
        """Of the network."""
        return self.map.analysis

    # -- in the loop -----------------------------------------------------------------------------

    def start(self, norms: NDArray[np.floating], rates: NDArray[np.floating]) -> None:
        """Set the first strength; arguments as for `update`."""
        self.control.aim(self._magnitudes(norms), self._rates(rates, None, 0.0))

    @property
    def attentive(self) -> bool:
        """Whether sums have to be measured at the next step of the optimizer."""
        return self.saliency is not None and not self.done and self.pending + 1 >= self.control.schedule.refresh

    @property
    def _says(self) -> Floats | None:
        return None if self.saliency is None else self.saliency.says

    def step(self) -> bool:
        """Count a step of the optimizer; whether `update` is due."""
        if not self.done:
            self.pending += 1
        return self.pending >= self.control.schedule.refresh

    def update(
        self,
        norms: NDArray[np.floating],
        rates: NDArray[np.floating],
        squares: NDArray[np.floating] | None = None,
        eps: float = 0.0,
        sums: NDArray[np.floating] | None = None,
    ) -> Changes:
        """What the penalty does for the steps since the last update.

        Args:
            norms: √Σ squares of every slice of ``map.sources.slices``, ``[positions]``.
            rates: the learning rate there, ``[positions]``.
            squares: the mean there of the optimizer's running mean square of gradients, ``[positions]``, where it
                divides steps by the root of that (Adam, RMSprop). The penalty is divided by it, too: loss and penalty
                then balance as they do without the division, where |∂loss| is below strength · price. Unlike a penalty
                in the loss, none of it gets into that mean square.
            eps: what the optimizer adds to that root.
            sums: Σ w · ∂L/∂w of the last step over the slice at every position of ``saliency.slices``, where there is
                `saliency`: of gradients before the optimizer's step.

        Raises:
            TrainingError: norms are infinite or no numbers.
        """
        found, steps = self._magnitudes(norms), self.pending
        if self.saliency is not None and sums is not None:
            self.saliency.measure(sums)
        factors, rest = self.control.update(found, self._rates(rates, squares, eps), steps, self._says)
        self.pending = 0
        for warning in self.control.warnings:
            log.warning(warning)
        self.control.warnings.clear()
        gone = not self.control.alive.all()
        moved = self.map.sources.slices.positions and (self.shrinks or gone)
        return Changes(
            self.map.sources.slices.factors(factors) if moved else None,
            self.map.rest.factors(rest) if self.map.rest.positions and gone else None,
            self._bury(),
        )

    def finish(self, norms: NDArray[np.floating], rates: NDArray[np.floating]) -> Dead:
        """Meet the budget now, by removing what is worth least for its price; gives what has to be zeroed."""
        self.control.finish(self._magnitudes(norms), self._rates(rates, None, 0.0), self._says)
        self.pending = 0
        return self._bury()

    def _bury(self) -> Dead:
        now = self.control.fading == 0
        new, self._buried = now & ~self._buried, now
        if not new.any():
            return []
        self.dead, self.dead_weights = self.map.pinned.dead(~now), self.map.silenced.dead(~now)
        return [*self.map.pinned.dead(~new), *self.map.silenced.dead(~new)]

    def _magnitudes(self, norms: NDArray[np.floating]) -> Floats:
        """Of every channel, ``[channels + 1]``, which have to be numbers."""
        found = self.map.sources.combine(norms)
        wrong = np.flatnonzero(found - found != 0)
        if len(wrong):
            analysis = self.analysis
            names = [analysis.groups[g].id for g in dict.fromkeys(analysis.group_of[wrong].tolist())]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            first, last = self.control.step + 1, self.control.step + self.pending
            since = f"since step {first}" if last <= first else f"since one of the steps {first} to {last}"
            raise TrainingError(
                f"{since} weights are infinite or no numbers, in {', '.join(names[:3])}{more}: the loss or a "
                "gradient was. Nothing is cut; load a checkpoint from before, then clip gradients, lower the learning "
                "rate, or leave out batches whose loss is not finite",
                code="not-finite",
            )
        return found

    def _rates(self, rates: NDArray[np.floating], squares: NDArray[np.floating] | None, eps: float) -> Floats:
        plain = self.map.sources.mean(rates)
        if squares is None:
            return plain
        return plain / np.maximum(np.sqrt(self.map.sources.mean(squares)) + eps, 1e-30)

    def slopes(self, norms: NDArray[np.floating]) -> tuple[Floats, float]:
        """The penalty for a loss: its gradient with respect to the norms, ``[positions]``, and its value.

        A framework that adds ``Σ slopes · norms`` to the loss, slopes held constant, has the gradient of
        ``strength · Σ price · magnitude``; and its value, unless sources combine by ``or``.
        """
        weights = self.control.strength * self.control.price * self.control.alive
        return self.map.sources.slopes(norms, weights), float(weights @ self.map.sources.combine(norms))

    # -- how it stands ---------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the budget is met and all that went is silent; from then on the structure is frozen."""
        return self.control.done

    @property
    def steps(self) -> int:
        """Steps of the optimizer until the structure was frozen, or so far."""
        return self.control.step + self.pending

    @property
    def over(self) -> bool:
        """Whether all planned steps were taken."""
        return self.steps >= self.control.schedule.steps

    @property
    def cost(self) -> dict[str, Number]:
        """The costs at the live widths."""
        return self.analysis.count(self.control.widths)

    @property
    def widths(self) -> dict[str, int]:
        """Group id to live width."""
        ids = (g.id for g in self.analysis.groups)
        return dict(zip(ids, self.control.widths.tolist(), strict=True))

    def scalars(self) -> dict[str, float]:
        """What to log: step, strength, ``cost/NAME`` and ``width/GROUP``, each a number."""
        return {
            "step": self.steps,
            "strength": self.control.strength,
            **{f"cost/{name}": float(value) for name, value in self.cost.items()},
            **{f"width/{group}": width for group, width in self.widths.items()},
        }

    def structure(self, method: str) -> Structure:
        """The live channels."""
        alive = self.control.alive.astype(np.int64)
        return Structure.of(self.analysis, alive, method=method, budget=str(self.budget), steps=self.steps)

    def state(self) -> dict[str, Any]:
        """Plain numbers and lists, for a checkpoint."""
        heard = {} if self.saliency is None else {"saliency": self.saliency.state()}
        return {**self.control.state(), "pending": self.pending, **heard}

    def restore(self, state: Mapping[str, Any]) -> Dead:
        """Continue from `state()`; gives what has to be zeroed. Raises StructureError where it is of another model."""
        self.control.restore(state)
        self.pending = state["pending"]
        if self.saliency is not None and "saliency" in state:
            self.saliency.restore(state["saliency"])
        self._buried[:] = False
        return self._bury()
