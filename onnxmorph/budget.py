"""Budgets: what the result may cost at most."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from onnxmorph.analysis import Analysis
from onnxmorph.cost import NAMES
from onnxmorph.errors import BudgetError
from onnxmorph.polynomial import Widths

COSTS = (*NAMES, "peak_memory")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_LIMIT = re.compile(r"\s*(\w+)\s*=\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([kmgt%]?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Limit:
    """At most `amount` of a cost: units of the cost, or a share of the full network's (0.5 is 50 %)."""

    cost: str
    amount: float
    relative: bool


@dataclass(frozen=True)
class Budget:
    """One or several limits that must hold together.

    >>> Budget.parse("flops=50%,params=1.5M").limits
    (Limit(cost='flops', amount=0.5, relative=True), Limit(cost='params', amount=1500000.0, relative=False))
    """

    limits: tuple[Limit, ...]

    @staticmethod
    def parse(text: str | Budget) -> Budget:
        """Read ``name=amount[,name=amount]``; amounts are ``50%``, ``1.2G``, ``300k`` or plain numbers.

        Raises:
            BudgetError: the text cannot be read, or names an unknown cost.
        """
        if isinstance(text, Budget):
            return text
        limits = []
        for part in text.split(","):
            found = _LIMIT.fullmatch(part)
            if not found:
                raise BudgetError(f"budget {part!r} cannot be read; write e.g. flops=50% or params=1.2M", code="budget")
            name, amount, unit = found[1], float(found[2]), found[3].lower()
            if name not in COSTS:
                message = f"budget {part!r}: there is no cost {name!r}; the costs are {', '.join(COSTS)}"
                raise BudgetError(message, code="budget-cost")
            if not 0 < amount < 1e30:
                raise BudgetError(f"budget {part!r}: the amount must be positive and below 1e30", code="budget")
            relative = unit == "%"
            limits.append(Limit(name, amount / 100 if relative else amount * _UNITS[unit], relative))
        return Budget(tuple(limits))

    def absolute(self, analysis: Analysis) -> Mapping[str, int]:
        """The limits in units of each cost, the tightest of several; shares are of the full network."""
        limits: dict[str, int] = {}
        for limit in self.limits:
            full = analysis.costs[limit.cost].value(analysis.widths) if limit.relative else 1
            most = int(limit.amount * full)
            limits[limit.cost] = min(most, limits.get(limit.cost, most))
        return limits

    def met(self, analysis: Analysis, widths: Widths) -> bool:
        """Whether these widths satisfy every limit."""
        return all(analysis.costs[name].value(widths) <= most for name, most in self.absolute(analysis).items())

    def __str__(self) -> str:
        return ",".join(
            f"{x.cost}={x.amount * 100:.12g}%" if x.relative else f"{x.cost}={x.amount:.12g}" for x in self.limits
        )


def out_of_reach(analysis: Analysis, budget: Budget, smallest: Widths) -> BudgetError:
    """The error for a budget below what the smallest widths cost."""
    parts = []
    for name, most in budget.absolute(analysis).items():
        full, least = (analysis.costs[name].value(w) for w in (analysis.widths, smallest))
        if least > most:
            parts.append(f"{name} cannot go below {least:,} ({least / max(full, 1):.1%} of {full:,})")
    return BudgetError(f"the budget {budget} cannot be met: {'; '.join(parts)}", code="budget-reach")
