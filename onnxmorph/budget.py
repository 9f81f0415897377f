"""Budgets: what the result may cost at most."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.cost import NAMES
from onnxmorph.errors import BudgetError
from onnxmorph.polynomial import Number, Resource, Widths

ON_DEVICES = ("latency", "classic_latency")  # costs that only an analysis with a device has; in seconds
COSTS = (*NAMES, "peak_memory", *ON_DEVICES)
IN_BYTES = ("param_bytes", "activation_bytes", "bytes_moved", "peak_memory")

COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
BYTES = {
    **{f"{prefix}{'B' if prefix else ''}": factor for prefix, factor in COUNTS.items()},
    **{f"{prefix}iB": 1024.0**power for power, prefix in enumerate("KMGT", 1)},
    "B": 1.0,
}
TIMES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0}  # two characters for micro
_LIMIT = re.compile(r"\s*(\w+)\s*=\s*((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-zµμ]*|%)\s*", re.IGNORECASE)


def units(cost: str) -> Mapping[str, float]:
    """The units that amounts of a cost are written in, and what each stands for."""
    return TIMES if cost in ON_DEVICES else BYTES | COUNTS if cost in IN_BYTES else COUNTS


def written(cost: str, amount: float) -> str:
    """An amount of a cost for people: whole numbers, bytes, or milliseconds."""
    if cost in ON_DEVICES:
        return f"{amount * 1e3:.4g} ms"
    return f"{amount:,.12g}" + (" bytes" if cost in IN_BYTES else "")


@dataclass(frozen=True)
class Limit:
    """At most `amount` of a cost: a count, bytes or seconds, or a share of the full network's (0.5 is 50 %)."""

    cost: str
    amount: float
    relative: bool

    def __str__(self) -> str:
        unit = "%" if self.relative else "s" if self.cost in ON_DEVICES else ""
        return f"{self.cost}={self.amount * (100 if self.relative else 1):.12g}{unit}"


@dataclass(frozen=True)
class Budget:
    """One or several limits that must hold together.

    >>> Budget.parse("flops=50%,params=1.5M").limits
    (Limit(cost='flops', amount=0.5, relative=True), Limit(cost='params', amount=1500000.0, relative=False))
    >>> str(Budget.parse("latency=3ms,peak_memory=2MiB"))
    'latency=0.003s,peak_memory=2097152'
    """

    limits: tuple[Limit, ...]

    @staticmethod
    def parse(text: str | Budget) -> Budget:
        """Read ``name=amount[,name=amount]``.

        Amounts are shares (``50%``), counts (``1.2G``, ``300k``, plain numbers), for costs in bytes also ``64MB`` or
        ``10MiB``, and for latencies times (``3ms``, from ns to s).

        Raises:
            BudgetError: the text cannot be read, names an unknown cost, or has a unit that the cost is not written in.
        """
        return text if isinstance(text, Budget) else Budget(tuple(map(_limit, text.split(","))))

    def absolute(self, analysis: Analysis) -> Mapping[str, Number]:
        """The limits in units of each cost, the tightest of several; shares are of the full network.

        Raises:
            BudgetError: the analysis does not have a cost.
        """
        limits: dict[str, Number] = {}
        for limit in self.limits:
            resource = _resource(analysis, limit)
            full = resource.value(analysis.widths) if limit.relative else 1
            most = limit.amount * full if limit.cost in ON_DEVICES else int(limit.amount * full)
            limits[limit.cost] = min(most, limits.get(limit.cost, most))
        return limits

    def resources(self, analysis: Analysis) -> Mapping[str, Resource]:
        """The costs that are limited. Raises BudgetError where the analysis does not have one."""
        return {limit.cost: _resource(analysis, limit) for limit in self.limits}

    def met(self, analysis: Analysis, widths: Widths) -> bool:
        """Whether these widths satisfy every limit."""
        resources = self.resources(analysis)
        return all(resources[name].value(widths) <= most for name, most in self.absolute(analysis).items())

    def __str__(self) -> str:
        return ",".join(map(str, self.limits))


def _limit(part: str) -> Limit:
    found = _LIMIT.fullmatch(part)
    if not found:
        message = f"budget {part!r} cannot be read; write e.g. flops=50%, params=1.2M or latency=3ms"
        raise BudgetError(message, code="budget")
    cost, amount, unit = found[1], float(found[2]), found[3]
    if cost not in COSTS:
        raise BudgetError(
            f"budget {part!r}: there is no cost {cost!r}; the costs are {', '.join(COSTS)}", code="budget-cost"
        )
    if not 0 < amount < 1e30:
        raise BudgetError(f"budget {part!r}: the amount must be positive and below 1e30", code="budget")
    if unit == "%":
        return Limit(cost, amount / 100, True)
    known = {name.lower(): factor for name, factor in units(cost).items()}
    if unit.lower() not in known:
        names = ", ".join(name for name in units(cost) if name and name != "μs")
        how = f"write a unit behind {found[2]}" if not unit else f"there is no unit {unit!r} for it"
        raise BudgetError(f"budget {part!r}: {how}: one of {names}, or % of the full network", code="budget-unit")
    return Limit(cost, amount * known[unit.lower()], False)


def _resource(analysis: Analysis, limit: Limit) -> Resource:
    if limit.cost not in analysis.costs:
        how = "give --device" if limit.cost in ON_DEVICES else f"add it by with_costs({limit.cost}=...)"
        message = f"budget {limit}: {limit.cost} is not known for this analysis; {how}"
        raise BudgetError(message, code="budget-device")
    return analysis.costs[limit.cost]


def out_of_reach(analysis: Analysis, budget: Budget, closest: Widths, holds: Sequence[str] = ()) -> BudgetError:
    """The error for a budget that cannot be met.

    Args:
        analysis: gives the costs.
        budget: the limits.
        closest: the widths that come closest to all of them together, ``[groups]``.
        holds: what keeps widths from being smaller, in words.
    """
    parts, loose = [], np.ones(len(closest), np.int64)
    for name, most in budget.absolute(analysis).items():
        full, least = (analysis.costs[name].value(w) for w in (analysis.widths, closest))
        share = f"({least / full:.1%} of {written(name, full)})" if full else ""
        if least > most:
            parts.append(f"{name} cannot go below {written(name, least)} {share}")
        elif len(budget.limits) > 1:
            parts.append(f"{name} would be {written(name, least)} {share}, which is within")
    message = f"the budget {budget} cannot be met: {'; '.join(parts)}"
    if holds and (closest > loose).any():
        easier = "without which it can" if budget.met(analysis, np.minimum(loose, closest)) else "which is not all"
        message += f"; widths are held up by {', '.join(holds)}, {easier}"
    return BudgetError(message, code="budget-reach")
