"""The three ways to a new network: remove channels, multiply all widths, widen what is left."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxmorph.analysis import Analysis, bounded
from onnxmorph.axes import Array
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.errors import BudgetError, StructureError
from onnxmorph.importance import scores
from onnxmorph.model import Source, save
from onnxmorph.polynomial import Widths
from onnxmorph.search import keep_best, multiply, select, spread
from onnxmorph.structure import Structure
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.fold import fold
from onnxmorph.surgery.grow import grown

INITS = ("preserve", "fresh")
MOST_PARAMETERS = 1 << 24  # of a model that grew more than a thousandfold


@dataclass(frozen=True)
class Morphed:
    """A rewritten network: the model, the structure that led to it, and what a user should know about it."""

    model: ir.Model
    structure: Structure
    notes: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, whole or not at all. Raises OutputError."""
        save(self.model, path)


def shrink(
    source: Source | Analysis,
    structure: Structure | None = None,
    *,
    budget: str | Budget | None = None,
    by: str = "l1",
    seed: int = 0,
    round_to: int = 1,
    bounds: Bounds | None = None,
) -> Morphed:
    """Remove channels; the live ones keep their weights.

    The result computes what the original does with the removed channels at zero. Where a removed channel is
    constant in the original (its scale is 0, its shift is not), what it says is folded into the next bias.

    Args:
        source: the model, or its analysis.
        structure: which channels live; or else
        budget: what the result may cost, e.g. ``"flops=50%"``: the channels that matter least go.
        by: how channels are ranked then: ``l1``, ``l2``, ``bn`` or ``random``.
        seed: for ``random``.
        round_to: widths become multiples of this (where channels are chosen here).
        bounds: what has to stay, and how wide; without it, the boundaries of the analysis or of the structure.

    Raises:
        BudgetError: the budget is malformed or out of reach.
        BoundsError: a boundary names nothing in the model.
        StructureError: the structure is for another model, removes a whole group, or crosses a boundary.
    """
    analysis = _bounded(source, bounds, structure)
    if (structure is None) == (budget is None):
        raise BudgetError("give either a structure or a budget", code="budget-or-structure")
    if structure is not None:
        copies = structure.copies(analysis)
        copies = np.minimum(copies, 1)
        structure = Structure.of(analysis, copies, **structure.provenance)
    else:
        wanted = Budget.parse(budget or "")
        copies = select(analysis, scores(analysis, by, seed), wanted, round_to)
        found = {"method": f"shrink by {by}", "seed": seed, "budget": str(wanted), "round_to": round_to}
        structure = Structure.of(analysis, copies, **found)
    _check_alive(structure)
    weights, notes = fold(analysis, copies)
    return Morphed(emit(analysis, copies, weights), structure, (*_averages(analysis, copies), *notes))


def scale(
    source: Source | Analysis,
    budget: str | Budget,
    *,
    round_to: int = 1,
    init: str = "preserve",
    seed: int = 0,
    bounds: Bounds | None = None,
) -> Morphed:
    """Multiply all widths by one number, the largest that satisfies the budget: the plain width multiplier.

    Args:
        source: the model, or its analysis.
        budget: what the result may cost, e.g. ``"flops=50%"`` or ``"flops=200%"``.
        round_to: widths become multiples of this.
        init: weights of new channels, where the network grows: ``preserve`` or ``fresh``.
        seed: for these weights.
        bounds: what keeps its width, and least widths; without it, the boundaries of the analysis.

    Raises:
        BudgetError: the budget is malformed or out of reach.
        BoundsError: a boundary names nothing in the model.
    """
    analysis = _bounded(source, bounds)
    wanted = Budget.parse(budget)
    omega, widths = multiply(analysis, analysis.widths, wanted, round_to)
    _check_size(analysis, widths, wanted)
    base = keep_best(analysis, scores(analysis), np.minimum(widths, analysis.widths))
    found = {"method": "scale", "omega": omega, "budget": str(wanted), "round_to": round_to}
    return _widened(analysis, spread(analysis, base, widths), init, seed, found)


def expand(
    source: Source | Analysis,
    structure: Structure,
    budget: str | Budget,
    *,
    round_to: int = 1,
    init: str = "preserve",
    seed: int = 0,
    bounds: Bounds | None = None,
) -> Morphed:
    """Widen the live network uniformly until the budget is full again.

    Args:
        source: the original model, that the structure was made from; or its analysis.
        structure: which channels live.
        budget: what the result may cost; shares are of the original, e.g. ``"flops=100%"``.
        round_to: widths become multiples of this.
        init: weights of new channels: ``preserve`` starts where the shrunk network stopped, ``fresh`` draws them.
        seed: for these weights.
        bounds: what keeps its width, and least widths; without it, the boundaries of the analysis or the structure.

    Raises:
        BudgetError: the budget is malformed or out of reach.
        BoundsError: a boundary names nothing in the model.
        StructureError: the structure is for another model, or crosses a boundary.

    Source: MorphNet (arXiv 1711.06798), Algorithm 1, step 3.
    """
    analysis = _bounded(source, bounds, structure)
    wanted = Budget.parse(budget)
    _check_alive(structure)
    copies = structure.copies(analysis)
    live = np.minimum(copies, 1)
    base = np.bincount(analysis.group_of[1:], copies[1:], len(analysis.groups)).astype(np.int64)
    omega, widths = multiply(analysis, base, wanted, round_to)
    _check_size(analysis, widths, wanted)
    copies = spread(analysis, live, widths)
    found = {
        **structure.provenance,
        "expanded": {"omega": omega, "budget": str(wanted), "round_to": round_to},
    }
    return _widened(analysis, copies, init, seed, found)


def _bounded(source: Source | Analysis, bounds: Bounds | None, structure: Structure | None = None) -> Analysis:
    """The analysis under the boundaries given, or else those of the analysis given, or else the structure's."""
    if bounds is None and structure is not None and not (isinstance(source, Analysis) and source.bounds):
        bounds = structure.bounds
    return bounded(source, bounds)


def _widened(analysis: Analysis, copies: Array, init: str, seed: int, provenance: dict[str, object]) -> Morphed:
    if init not in INITS:
        raise StructureError(f"there is no init {init!r}; it is one of {', '.join(INITS)}", code="init")
    weights, notes = grown(analysis, copies, init, seed)
    structure = Structure.of(analysis, copies, **provenance, init=init, init_seed=seed)
    return Morphed(emit(analysis, copies, weights), structure, (*_averages(analysis, copies), *notes))


def _check_size(analysis: Analysis, widths: Widths, budget: Budget) -> None:
    """Refuse growth that is a slip of the pen: it would fill the memory before anything could be said."""
    before, after = (analysis.costs["params"].value(w) for w in (analysis.widths, widths))
    if after > max(1000 * before, MOST_PARAMETERS):
        message = f"the budget {budget} asks for a model of {after:,} parameters, not {before:,}; give a smaller one"
        raise BudgetError(message, code="budget-size")


def _check_alive(structure: Structure) -> None:
    empty = [g.id for g in structure.groups if not g.keep]
    if empty:
        message = f"the structure removes all of group {empty[0]!r}; keep at least one channel of it"
        raise StructureError(message, code="structure-empty")


def _averages(analysis: Analysis, copies: Array) -> list[str]:
    changed = {g.id for g in analysis.groups if (copies[g.start + 1 : g.start + 1 + g.width] != 1).any()}
    ops = [f"{a.op} {a.node!r}" for a in analysis.averages if changed.intersection(a.groups)]
    if not ops:
        return []
    shown = ", ".join(ops[:3]) + (f" and {len(ops) - 3} more" if len(ops) > 3 else "")
    return [f"statistics are now taken over the live channels only, in {shown}"]
