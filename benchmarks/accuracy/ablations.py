"""What the method does by default, done otherwise: one option of an experiment for each, to see what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import inf
from typing import Any
from unittest.mock import patch

import numpy as np

from onnxmorph.axes import Floats
from onnxmorph.controller import RETURN, Controller
from onnxmorph.penalty import mean_one
from onnxmorph.schedule import Schedule
from onnxmorph.worth import weights, worth


def _prices(how: str) -> Any:
    """``equal``: every channel costs the same, as in a plain L1 penalty."""

    def equal(analysis: Any, limits: Any, widths: Any, prunable: Any) -> Floats:
        return mean_one(np.where(prunable, 1.0, 0.0), np.where(prunable, widths, 0))

    return patch("onnxmorph.controller.prices", {"equal": equal}[how])


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
