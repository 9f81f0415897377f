"""The three ways to a new network: remove channels, multiply all widths, widen what is left."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis, analyze, bounded
from onnxmorph.axes import Array
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.errors import BudgetError, StructureError, TopologyError
from onnxmorph.importance import Gradients, scores
from onnxmorph.knapsack import select
from onnxmorph.model import Source, save
from onnxmorph.polynomial import Widths
from onnxmorph.search import multiply
from onnxmorph.structure import Structure
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.fold import fold
from onnxmorph.surgery.grow import grown
from onnxmorph.widths import Multiple, keep_best, spread

INITS = ("preserve", "fresh")
MOST_PARAMETERS = 1 << 24  # of a model that grew more than a thousandfold


@dataclass(frozen=True)
class Morphed:
    """A rewritten network: the model, the structure that led to it, and what a user should know about it.

    ``inexact`` are the groups whose copies changed what the network computes, though they were to preserve it.
    """

    model: ir.Model
    structure: Structure
    notes: tuple[str, ...] = ()
    inexact: frozenset[str] = frozenset()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model, whole or not at all. Raises OutputError."""
        save(self.model, path)


def shrink(
    source: Source | Analysis,
    structure: Structure | None = None,
    *,
    budget: str | Budget | None = None,
    by: str = "magnitude",
    seed: int = 0,
    gradients: Gradients | None = None,
    round_to: Multiple = 1,
    allow_empty: bool = False,
    bounds: Bounds | None = None,
) -> Morphed:
    """Remove channels; the live ones keep their weights.

    The result computes what the original does with the removed channels at zero. Where a removed channel is
    constant in the original (its scale is 0, its shift is not), what it says is folded into the next bias.
    A group may go as a whole: then so do the nodes that only it kept alive.

    Args:
        source: the model, or its analysis.
        structure: which channels live; or else
        budget: what the result may cost, e.g. ``"flops=50%"``: the channels go that matter least for what they cost.
        by: how channels are scored then: ``magnitude``, ``l1``, ``l2``, ``bn``, ``taylor`` or ``random``.
        seed: for ``random``.
        gradients: for ``taylor``, by parameter name.
        round_to: widths become multiples of this (where channels are chosen here); ``auto``: of what costs reward.
        allow_empty: choose whole groups too, where no output hangs on them; else each keeps a channel.
        bounds: what has to stay, and how wide; without it, the boundaries of the analysis or of the structure.

    Raises:
        BudgetError: the budget is malformed or out of reach.
        BoundsError: a boundary names nothing in the model.
        StructureError: the structure is for another model, or crosses a boundary; gradients do not fit.
        TopologyError: the structure empties a group that an output hangs on.
    """
    analysis = _bounded(source, bounds, structure)
    if (structure is None) == (budget is None):
        raise BudgetError("give either a structure or a budget", code="budget-or-structure")
    if structure is not None:
        return _cut(analysis, np.minimum(structure.copies(analysis), 1), structure.provenance)
    wanted, ranks = Budget.parse(budget or ""), scores(analysis, by, seed, gradients)
    found = {"method": f"shrink by {by}", "seed": seed, "budget": str(wanted), "round_to": round_to}
    whole = {g.id: ranks[g.start + 1 : g.start + 1 + g.width].sum() for g in analysis.groups}
    may_empty = np.full(len(analysis.groups), allow_empty) & (analysis.minimum <= 1)
    while True:
        copies = select(analysis, ranks, wanted, round_to, may_empty)
        try:
            return _cut(analysis, copies, found)
        except TopologyError as e:  # of the groups that cannot all go, the one that matters most stays
            stays = max(e.groups, key=lambda id: whole[id])
            may_empty[[g.id for g in analysis.groups].index(stays)] = False


def _cut(analysis: Analysis, copies: Array, provenance: Mapping[str, object]) -> Morphed:
    weights, notes = fold(analysis, copies)
    return _morphed(analysis, copies, weights, provenance, notes)


def _morphed(
    analysis: Analysis,
    copies: Array,
    weights: Mapping[str, NDArray[Any]],
    provenance: Mapping[str, object],
    notes: Sequence[str],
) -> Morphed:
    model = emit(analysis, copies, weights)
    structure = Structure.of(analysis, copies, **provenance)
    if (structure.widths == 0).any():  # more goes than the polynomials know of
        shapes = {name: shape for name in analysis.graph.inputs if (shape := analysis.graph.shapes.get(name))}
        counted = analyze(model, shapes).count()
        after = {n: counted.get(n, at_most) for n, at_most in structure.costs["after"].items()}
        structure = replace(structure, costs={**structure.costs, "after": after})
    return Morphed(model, structure, (*_averages(analysis, copies), *notes))


def scale(
    source: Source | Analysis,
    budget: str | Budget,
    *,
    round_to: Multiple = 1,
    init: str = "preserve",
    seed: int = 0,
    bounds: Bounds | None = None,
) -> Morphed:
    """Multiply all widths by one number, the largest that satisfies the budget: the plain width multiplier.

    Args:
        source: the model, or its analysis.
        budget: what the result may cost, e.g. ``"flops=50%"`` or ``"flops=200%"``.
        round_to: widths become multiples of this; ``auto``: of what costs reward.
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
    round_to: Multiple = 1,
    init: str = "preserve",
    seed: int = 0,
    bounds: Bounds | None = None,
    exact: bool = False,
) -> Morphed:
    """Widen the live network uniformly until the budget is full again.

    Groups that the structure says a module does not follow stay as they are.

    Args:
        source: the original model, that the structure was made from; or its analysis.
        structure: which channels live.
        budget: what the result may cost; shares are of the original, e.g. ``"flops=100%"``.
        round_to: widths become multiples of this; ``auto``: of what costs reward.
        init: weights of new channels: ``preserve`` starts where the shrunk network stopped, ``fresh`` draws them.
        seed: for these weights.
        bounds: what keeps its width, and least widths; without it, the boundaries of the analysis or the structure.
        exact: leave groups as they are whose copies would change what the network computes, where `init` preserves:
            what a LayerNorm averages over, the width of attention heads. (Without it, notes name the places.)

    Raises:
        BudgetError: the budget is malformed or out of reach.
        BoundsError: a boundary names nothing in the model.
        StructureError: the structure is for another model, or crosses a boundary.
        TopologyError: the structure empties a group that an output hangs on; other empty groups stay empty.

    Source: MorphNet (arXiv 1711.06798), Algorithm 1, step 3.
    """
    analysis = _bounded(source, bounds, structure)
    wanted = Budget.parse(budget)
    copies = structure.copies(analysis)
    live = np.minimum(copies, 1)
    base = np.bincount(analysis.group_of[1:], copies[1:], len(analysis.groups)).astype(np.int64)
    hold = structure.locked
    while True:
        omega, widths = multiply(analysis, base, wanted, round_to, hold=hold)
        _check_size(analysis, widths, wanted)
        found = {
            **structure.provenance,
            "expanded": {"omega": omega, "budget": str(wanted), "round_to": round_to},
        }
        result = _widened(analysis, spread(analysis, live, widths), init, seed, found)
        if not exact or result.inexact <= hold:
            return result
        hold |= result.inexact


def _bounded(source: Source | Analysis, bounds: Bounds | None, structure: Structure | None = None) -> Analysis:
    """The analysis under the boundaries given, or else those of the analysis given, or else the structure's."""
    if bounds is None and structure is not None and not (isinstance(source, Analysis) and source.bounds):
        bounds = structure.bounds
    return bounded(source, bounds)


def _widened(analysis: Analysis, copies: Array, init: str, seed: int, provenance: dict[str, object]) -> Morphed:
    if init not in INITS:
        raise StructureError(f"there is no init {init!r}; it is one of {', '.join(INITS)}", code="init")
    weights, lost = grown(analysis, copies, init, seed)
    found = {**provenance, "init": init, "init_seed": seed}
    result = _morphed(analysis, copies, weights, found, [each.note for each in lost])
    return replace(result, inexact=frozenset().union(*(each.groups for each in lost)))


def _check_size(analysis: Analysis, widths: Widths, budget: Budget) -> None:
    """Refuse growth that is a slip of the pen: it would fill the memory before anything could be said."""
    before, after = (analysis.costs["params"].value(w) for w in (analysis.widths, widths))
    if after > max(1000 * before, MOST_PARAMETERS):
        message = f"the budget {budget} asks for a model of {after:,} parameters, not {before:,}; give a smaller one"
        raise BudgetError(message, code="budget-size")


def _averages(analysis: Analysis, copies: Array) -> list[str]:
    own = {g.id: copies[g.start + 1 : g.start + 1 + g.width] for g in analysis.groups}
    changed = {name for name, kept in own.items() if kept.any() and (kept != 1).any()}
    ops = [f"{a.op} {a.node!r}" for a in analysis.averages if changed.intersection(a.groups)]
    if not ops:
        return []
    shown = ", ".join(ops[:3]) + (f" and {len(ops) - 3} more" if len(ops) > 3 else "")
    return [f"statistics are now taken over the live channels only, in {shown}"]
