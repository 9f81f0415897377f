"""How much each channel matters: scores for choosing without training."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from difflib import get_close_matches
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array
from onnxmorph.cost import UNCOUNTED
from onnxmorph.errors import StructureError
from onnxmorph.quantised import real, real_pieces, steps_of

Scores = NDArray[np.float64]
Gradients = Mapping[str, NDArray[np.generic]]
POWER = 3  # of summed magnitudes: a channel that many ops share is dearer, and is worth more than in proportion
METHODS = ("magnitude", "l1", "l2", "bn", "taylor", "random")


def scores(analysis: Analysis, by: str = "magnitude", seed: int = 0, gradients: Gradients | None = None) -> Scores:
    """A score for every channel, ``[channels + 1]``, not negative, comparable over groups when divided by prices.

    Args:
        analysis: of the model whose weights are scored.
        by: ``l1`` or ``l2``: norms of all coupled slices, each parameter scaled to mean 1, summed and cubed;
            ``magnitude``, which is l2; ``bn``: the same of the scales of normalisation layers (l1 where a group has
            none); ``taylor``: |Σ w·∂L/∂w| over all coupled slices, what the loss changes to first order; ``random``.
        seed: for ``random``.
        gradients: for ``taylor``: parameter name to gradient, in the shape of the parameter, or of several batches in
            ``[batches, *shape]``; the score is then the root of the mean square over batches.

    Raises:
        StructureError: there is no such method, or gradients are missing, not wanted, or do not fit.

    Source: Taylor scores, Molchanov et al. 2019 (arXiv 1906.10771), equation 8; the cube was measured
    (docs/choosing.md).
    """
    if by not in METHODS:
        raise StructureError(f"there is no method {by!r}; the methods are {', '.join(METHODS)}", code="method")
    if (by == "taylor") != (gradients is not None):
        message = "taylor needs gradients" if by == "taylor" else f"gradients are for taylor, not for {by}"
        raise StructureError(f"{message}: scores(analysis, 'taylor', gradients=...)", code="gradients")
    if gradients is not None:
        return _taylor(analysis, gradients)
    if by == "random":
        return np.random.default_rng(seed).uniform(size=analysis.channels + 1)
    names = list(analysis.parameters)
    if by == "bn":
        scale = _norms(analysis, 1, [n for n, role in analysis.roles.items() if role == "scale"])
        has = np.bincount(analysis.group_of[1:], scale[1:], minlength=len(analysis.groups)) > 0
        found = np.where(np.append(False, has[analysis.group_of[1:]]), scale, _norms(analysis, 1, names))
    else:
        found = _norms(analysis, 1 if by == "l1" else 2, names)
    found[0] = 0
    result: Scores = found**POWER
    return result


def _norms(analysis: Analysis, power: int, names: list[str]) -> Scores:
    """Sum over parameters of the mean magnitude (or root mean square) of each channel's slices."""
    total = np.zeros(analysis.channels + 1)
    steps = steps_of(analysis)
    for name in names:
        if analysis.roles.get(name) in ("state", "quantiser"):
            continue
        labelled = _labelled(analysis, name)
        if not labelled:
            continue
        shape = analysis.parameters[name].shape
        sums = {axis: np.zeros(shape[axis]) for axis, _ in labelled}
        for index, part in real_pieces(analysis, name, steps):
            np.power(np.abs(part, out=part), power, out=part)
            for axis, found in sums.items():
                found[index[axis]] += part.sum(tuple(t for t in range(part.ndim) if t != axis))
        for axis, rows in labelled:
            each = (sums[axis] / (prod(shape) / shape[axis])) ** (1 / power)
            each = each / (each.mean() or 1.0)
            for column in rows.T:
                np.add.at(total, column, each / np.bincount(column, minlength=len(total))[column])
    return total


def _taylor(analysis: Analysis, gradients: Gradients) -> Scores:
    """The root over batches of the mean square of Σ w·∂L/∂w over all slices of each channel."""
    steps, total = steps_of(analysis), np.zeros((1, analysis.channels + 1))
    for name in analysis.parameters:
        labelled = _labelled(analysis, name)
        if not labelled or analysis.roles.get(name) in UNCOUNTED:
            continue
        weights = real(analysis, name, steps)
        product = weights * _gradient(name, gradients, weights.shape)
        if 1 not in (len(total), len(product)) and len(total) != len(product):
            message = f"gradients of {name!r} are of {len(product)} batches, others of {len(total)}"
            raise StructureError(f"{message}; collect all from the same batches", code="gradients")
        for axis, rows in labelled:
            each = product.sum(tuple(t for t in range(1, product.ndim) if t != axis + 1))
            found = np.zeros((total.shape[1], len(each)))
            for column in rows.T:
                np.add.at(found, column, each.T)
            total = total + found.T
    result: Scores = np.sqrt((total**2).mean(0))
    return result


def _labelled(analysis: Analysis, name: str) -> list[tuple[int, Array]]:
    """The axes of a parameter that have channels, and which."""
    return [(t, rows) for t, rows in enumerate(analysis.rows[name]) if rows is not None]


def _gradient(name: str, gradients: Gradients, shape: tuple[int, ...]) -> Scores:
    """The gradient of a parameter, ``[batches, *shape]``; one without batches is of one."""
    if name not in gradients:
        near = get_close_matches(name, gradients, n=4, cutoff=0.4)
        rest = f"near names are {', '.join(map(repr, near))}" if near else f"there are {len(gradients)} others"
        raise StructureError(f"there is no gradient for the parameter {name!r}; {rest}", code="gradients")
    found = np.asarray(gradients[name])
    if found.dtype.kind not in "fiu" or found.shape[found.ndim - len(shape) :] != shape or found.ndim - len(shape) > 1:
        message = (
            f"the gradient of {name!r} is {found.dtype} of shape {list(found.shape)}; give numbers of shape "
            f"{list(shape)}, with an axis of batches before it or without"
        )
        raise StructureError(message, code="gradients")
    if not len(found.reshape(-1, *shape)) or not np.isfinite(found).all():
        message = f"the gradient of {name!r} has values that are no numbers, or no batches; leave out what overflowed"
        raise StructureError(message, code="gradients")
    return found.reshape(-1, *shape).astype(np.float64)


# What numpy and zipfile raise of broken files: NotImplementedError is a RuntimeError, sizes that lie fill the memory.
UNREADABLE = (OSError, ValueError, TypeError, AttributeError, EOFError, KeyError, RuntimeError, MemoryError)


def load_gradients(path: str | os.PathLike[str]) -> Gradients:
    """Gradients by parameter name, from an npz file. Raises StructureError where it cannot be read."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as found:  # numpy leaves a broken one open
            return dict(found)
    except (*UNREADABLE, zipfile.BadZipFile, zlib.error) as e:
        message = f"{path} cannot be read as gradients ({e}); write it by numpy.savez, an array per parameter name"
        raise StructureError(message, code="gradients-file") from None
