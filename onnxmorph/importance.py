"""How much each channel matters, from the weights alone: scores for choosing without training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.errors import StructureError
from onnxmorph.quantised import real, steps_of

Scores = NDArray[np.float64]
Weights = Callable[[str], NDArray[np.generic]]
METHODS = ("l1", "l2", "bn", "random")


def scores(analysis: Analysis, by: str = "l1", seed: int = 0) -> Scores:
    """A score for every channel, ``[channels + 1]``, of mean 1 over each group.

    Args:
        analysis: of the model whose weights are scored.
        by: ``l1`` or ``l2`` norms of all coupled slices, each parameter scaled to mean 1 first; ``bn`` the
            scales of normalisation layers (l1 where a group has none); or ``random``.
        seed: for ``random``.

    Raises:
        StructureError: there is no such method.
    """
    if by not in METHODS:
        raise StructureError(f"there is no method {by!r}; the methods are {', '.join(METHODS)}", code="method")
    if by == "random":
        return np.random.default_rng(seed).uniform(size=analysis.channels + 1)
    if by == "bn":
        scale = _norms(analysis, 1, [n for n, role in analysis.roles.items() if role == "scale"])
        found = np.where(scale > 0, scale, 0)
        has = np.bincount(analysis.group_of[1:], found[1:], minlength=len(analysis.groups)) > 0
        rest = _per_group(analysis, _norms(analysis, 1, list(analysis.parameters)))
        return np.where(np.append(False, has[analysis.group_of[1:]]), _per_group(analysis, found), rest)
    return _per_group(analysis, _norms(analysis, 1 if by == "l1" else 2, list(analysis.parameters)))


def _per_group(analysis: Analysis, values: Scores) -> Scores:
    """Divided by the mean over the group."""
    owner = analysis.group_of[1:]
    totals = np.bincount(owner, values[1:], minlength=len(analysis.groups))
    means = totals / np.maximum(analysis.widths, 1)
    return np.append(0.0, values[1:] / np.where(means > 0, means, 1)[owner])


def _norms(analysis: Analysis, power: int, names: list[str]) -> Scores:
    """Sum over parameters of the mean magnitude (or root mean square) of each channel's slices."""
    total = np.zeros(analysis.channels + 1)
    steps = steps_of(analysis)
    for name in names:
        if analysis.roles.get(name) in ("state", "quantiser"):
            continue
        labelled = [(t, rows) for t, rows in enumerate(analysis.rows[name]) if rows is not None]
        if not labelled:
            continue
        array = np.abs(real(analysis, name, steps)) ** power
        for axis, rows in labelled:
            others = tuple(t for t in range(array.ndim) if t != axis)
            each = array.mean(others) ** (1 / power)
            each = each / (each.mean() or 1.0)
            for column in rows.T:
                np.add.at(total, column, each / np.bincount(column, minlength=len(total))[column])
    return total
