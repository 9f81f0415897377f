"""What the method does by default, done otherwise: one option of an experiment for each, to see what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf
from typing import Any
from unittest.mock import patch

import numpy as np

from onnxmorph.adapters.torch import Morph
from onnxmorph.analysis import Analysis
from onnxmorph.axes import Floats
from onnxmorph.budget import Budget
from onnxmorph.controller import RETURN, Controller
from onnxmorph.penalty import mean_one
from onnxmorph.polynomial import Widths
from onnxmorph.schedule import Schedule
from onnxmorph.worth import weights, worth


def _prices(how: str) -> Any:
    """``equal``: every channel costs the same, as in a plain L1 penalty."""

    def equal(analysis: Any, limits: Any, widths: Any, prunable: Any) -> tuple[Floats, dict[str, float]]:
        return mean_one(np.where(prunable, 1.0, 0.0), np.where(prunable, widths, 0)), {}

    return patch("onnxmorph.controller.charges", {"equal": equal}[how])


def _strength(value: float) -> Any:
    """A fixed λ in place of the controller's; what is then still over the budget goes at the end."""
    fixed = property(lambda self: 0.0 if self.met else value, lambda self, _: None)
    return patch.object(Controller, "strength", fixed, create=True)


def _schedule(**changed: float) -> Any:
    """Some of the plan, as shares of the planned steps."""
    usual = Schedule.of

    def of(steps: int) -> Schedule:
        return replace(usual(steps), **{k: max(1, round(share * steps)) for k, share in changed.items()})

    return patch.object(Schedule, "of", staticmethod(of))


def _charged(who: str) -> Any:
    """``all``: every channel shrinks, not only those that would go by now if the budget had to be met."""
    return patch.object(Controller, "_due", {"all": lambda controller: controller.alive & (controller.price > 0)}[who])


def _weight(costs: str) -> Any:
    """Which costs say how much a group is worth, e.g. ``flops`` or ``flops,params``."""
    usual = weights
    return patch("onnxmorph.controller.weights", lambda analysis: usual(analysis, tuple(costs.split(","))))


def _worth(how: str) -> Any:
    """What the numbers that order channels count for: as they are, as shares of the group's in the log, or squared."""

    def of(controller: Controller, magnitudes: Floats, rates: Floats, says: Floats | None) -> Floats:
        each = magnitudes if says is None else says
        if how == "log":
            return worth(controller.analysis, each, controller.alive, controller.weight)
        return each**2 if how == "squared" else each

    return patch.object(Controller, "_worth", of)


ABLATIONS: Mapping[str, Callable[[Any], Any]] = {
    "prices": _prices,
    "strength": _strength,
    "charged": _charged,
    "weight": _weight,
    "worth": _worth,
    "fade": lambda share: _schedule(fade=share),
    "due_first": lambda share: _schedule(first=share),
    "due_last": lambda share: _schedule(last=share),
    "returns": lambda returns: patch("onnxmorph.controller.RETURN", RETURN if returns else inf),
}


@contextmanager
def ablated(options: dict[str, Any]) -> Iterator[None]:
    """What the options ask for while this is open; they are taken out."""
    with ExitStack() as stack:
        for name, change in ABLATIONS.items():
            if name in options:
                stack.enter_context(change(options.pop(name)))
        yield


@contextmanager
def spent(how: str, morph: Morph) -> Iterator[None]:
    """How a budget is filled while this is open: ``uniform``, all widths times one number, or by ``utility``.

    Utility takes Σ S · log(width) over the groups for what the network is worth, with S the sum of what the loss says
    of a group's channels; the channel that adds most of it for its cost is added, as long as the budget allows one.
    """
    if how == "uniform":
        yield
        return
    training = morph._training
    says = np.where(training.control.alive, training.saliency.says, 0.0)  # type: ignore[union-attr]

    def widths(
        analysis: Analysis, base: Widths, budget: Budget, _: Any = 1, hold: Container[str] = ()
    ) -> tuple[float, Widths]:
        total = np.bincount(analysis.group_of[1:], says[1:], len(base))
        limits, found, may = budget.absolute(analysis), base.copy(), (base > 0) & (analysis.widths > 1)
        may &= [group.id not in hold for group in analysis.groups]
        while may.any():
            price = sum(analysis.costs[name].gradient(found) / most for name, most in limits.items())
            gain = np.where(may, total / np.maximum(found, 1) / np.maximum(price, 1e-30), -1.0)
            best = int(gain.argmax())
            found[best] += 1
            if not budget.met(analysis, found):
                found[best] -= 1
                may[best] = False
        return 1.0, found

    with patch("onnxmorph.surgery.morph.multiply", widths):
        yield
