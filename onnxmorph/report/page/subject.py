"""What a report is of: networks before and after, what a run visited, and what training logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.polynomial import Widths
from onnxmorph.reading import LARGEST
from onnxmorph.structure import Structure


@dataclass(frozen=True)
class Point:
    """A network in the plot of trade-offs: what it costs, and how good it is where that is known.

    ``multiplied`` marks networks of the width multiplier, which are the curve that others are compared with. ``best``:
    no other of its run costs as little and is as good; None where that was not judged.
    """

    name: str
    costs: Mapping[str, float]
    metric: float | None = None
    multiplied: bool = False
    best: bool | None = None


@dataclass(frozen=True)
class Series:
    """Numbers over steps: the strength of the penalty, costs, and the width of every group; None where unknown."""

    steps: Sequence[float]
    strength: Sequence[float] | None
    costs: Mapping[str, Sequence[float]]
    widths: Mapping[str, Sequence[int | None]]
    marks: Sequence[tuple[float, str]] = ()
    unit: str = "step"


@dataclass(frozen=True)
class Subject:
    """One thing that was asked for.

    Attributes:
        name: as it is shown.
        kind: ``model``, ``structure``, ``run``, ``demo``, ``log`` or ``table``.
        analysis: of the network before; None where its file is not at hand.
        after: group id to the new width; None where nothing was changed.
        stated: the costs that a structure or a run holds: ``before`` and ``after``.
        points: what was visited.
        series: what was logged while training, or else the structures on the way.
        facts: what else there is to say: heading and text.
        groups: the groups of a structure without its model, with their widths before.
    """

    name: str
    kind: str
    analysis: Analysis | None = None
    after: Mapping[str, int] | None = None
    stated: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    points: tuple[Point, ...] = ()
    series: Series | None = None
    facts: tuple[tuple[str, str], ...] = ()
    groups: Mapping[str, int] = field(default_factory=dict)

    @property
    def before(self) -> Mapping[str, int]:
        """Group id to width, of the network before."""
        return self.groups if self.analysis is None else {g.id: g.width for g in self.analysis.groups}

    @property
    def widths(self) -> Widths | None:
        """The new widths, ``[groups of the analysis]``; a group that the network lost has 0."""
        if self.analysis is None or self.after is None:
            return None
        return np.array([self.after.get(g.id, 0) for g in self.analysis.groups], np.int64)

    def costs(self) -> dict[str, dict[str, float]]:
        """``before``, and ``after`` where something was changed.

        Counted; where whole groups went, what the structure states: more goes than the polynomials know of.
        """
        if self.analysis is None:
            return {when: dict(found) for when, found in self.stated.items()}
        before = self.analysis.count()
        if self.widths is None:
            return {"before": before}
        after = self.analysis.count(self.widths)
        if (self.widths == 0).any():
            after |= {name: each for name, each in self.stated.get("after", {}).items() if name in after}
        return {"before": before, "after": after}


def of_structure(name: str, structure: Structure, analysis: Analysis | None) -> Subject:
    """A structure, with the analysis of its model where there is one."""
    said = structure.provenance
    facts = tuple((key, _text(said[key])) for key in ("method", "budget", "seed", "round", "omega") if key in said)
    metric = said.get("metric")
    known = isinstance(metric, int | float) and not isinstance(metric, bool) and abs(metric) <= LARGEST
    rated = {"before": None, "after": metric if known else None}
    names = {"before": "the full network", "after": name.rpartition("/")[2]}
    points = tuple(Point(names[when], structure.costs[when], rated[when]) for when in names if when in structure.costs)
    return Subject(
        name,
        "structure",
        analysis,
        {g.id: len(g.keep) for g in structure.groups},
        structure.costs,
        points=points,
        facts=facts,
        groups={g.id: g.width for g in structure.groups},
    )


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
