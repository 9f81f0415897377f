"""What goes between a run and the user's train function: the plan, a round, and what the function gives back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.errors import RunError
from onnxmorph.model import Source
from onnxmorph.structure import Structure
from onnxmorph.widths import Multiple

SHARE = "60%"  # of each cost in the budget: what a round shrinks to where nothing else is said


@dataclass(frozen=True)
class Plan:
    """What a run is asked for.

    Args:
        budget: what expanded networks may cost; shares are of the network that the run began with.
        shrink: what a round trains towards; shares are of the network of that round. None: 60 % of every cost in
            `budget`.
        rounds: how many at most.
        tolerance: a run stops where a round moved no larger a share of the channels: Σ |new − old width| ≤ tolerance ·
            Σ old width.
        seed: for the train function, and for the weights of new channels.
        init: these weights, as in `expand`.
        round_to: multiples of expanded widths, as in `expand`.
        bounds: what has to stay, and how wide.
        device: for latencies; a name or a file.
        shapes: sizes of dynamic inputs, as in `analyze`.

    Raises:
        BudgetError: a budget cannot be read.
        RunError: rounds or tolerance are out of range.
    """

    budget: str = "flops=100%"
    shrink: str | None = None
    rounds: int = 3
    tolerance: float = 0.05
    seed: int = 0
    init: str = "preserve"
    round_to: Multiple = 1
    bounds: Bounds = field(default_factory=Bounds)
    device: str | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        budget = Budget.parse(self.budget)
        share = ",".join(f"{limit.cost}={SHARE}" for limit in budget.limits)
        object.__setattr__(self, "budget", str(budget))  # one spelling: it is compared, and names folders
        object.__setattr__(self, "shrink", str(Budget.parse(self.shrink or share)))
        if self.rounds < 1 or not 0 <= self.tolerance < 1:
            message = f"rounds are 1 or more, a tolerance is from 0 to below 1, not {self.rounds} and {self.tolerance}"
            raise RunError(message, code="run-plan")

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs that the plan limits: networks are judged by them."""
        limits = (*Budget.parse(self.budget).limits, *Budget.parse(self.shrink or "").limits)
        return tuple(dict.fromkeys(limit.cost for limit in limits))

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return json.loads(json.dumps({**asdict(self), "bounds": self.bounds.document()}))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Round:
    """What the train function is asked for: train ``model`` towards ``budget``.

    In the last round ``budget`` is None: train plainly. ``folder`` is the function's own; a round that was killed
    is begun again with what it left there. ``grown`` are the structures that lead from the network of the run to
    ``model``, one after the other.
    """

    number: int
    model: Path
    budget: str | None
    folder: Path
    seed: int
    bounds: Bounds
    device: str | None
    grown: tuple[Structure, ...]

    @property
    def last(self) -> bool:
        """Whether this is the training of the result."""
        return self.budget is None

    def visit(self, structure: Structure, metric: float | None = None) -> None:
        """Keep a structure that was met on the way; one that is there already gets the metric of now."""
        there = sorted(self.folder.parent.glob("milestone-*.json"))
        same = (path for path in there if Structure.load(path).groups == structure.groups)
        path = next(same, self.folder.parent / f"milestone-{len(there) + 1:03}.json")
        keep(structure, path, self, "milestone", metric)


@dataclass(frozen=True)
class Trained:
    """What the train function gives back.

    ``model`` is the trained network with all its channels; ``structure`` says which of them live, None in the last
    round; ``metric`` is how good it is, larger being better. Groups that `Structure.locked` names do not grow either.
    """

    model: Source
    structure: Structure | None = None
    metric: float | None = None


def keep(structure: Structure, path: Path, round: Round, kind: str, metric: float | None) -> None:
    """Write a structure, with what a run says of it. Raises OutputError."""
    metric = None if metric is None or not isfinite(metric) else float(metric)  # NaN is no JSON
    said = {**structure.provenance, "round": round.number, "visited": kind, "metric": metric}
    replace(structure, provenance=said).save(path)
