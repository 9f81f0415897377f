"""Measured latency: what `onnxmorph calibrate` learnt of a machine, as a cost of any network (docs/latency.md).

Each kind of kernel has coefficients, and the time of a kernel is the sum over its features (`features`). They are those
that were fitted to runs of the network itself at other widths, where there were any; else the mean over the networks
that were measured; else, for kinds that were never seen, those of any kernel.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask
from onnxmorph.errors import DeviceError
from onnxmorph.latency.features import ANY, Kind, kinds
from onnxmorph.latency.kernels import Kernel, kernels
from onnxmorph.latency.machine import Coefficients, Machine, Network
from onnxmorph.polynomial import Widths

CANDIDATES = (1, 2, 4, 8, 16, 32)  # multiples of widths that may pay
WINDOW = 64  # widths below the full one that are looked at
ENOUGH = 0.3  # of what is wasted at any width, what may be wasted at multiples
NEGLIGIBLE = 1e-3  # of a group's share of the time: what is not worth a multiple


def key_of(analysis: Analysis, found: tuple[Kernel, ...]) -> str:
    """What a network and all its shrunk and widened forms share: a hash of the names of its kernels."""
    names = ";".join(analysis.plans[k.steps[0]].node.key for k in found)
    return hashlib.sha256(names.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Measured:
    """Seconds of a network on a machine.

    ``weights`` are per kind the coefficients of its features. ``calibrated`` is what was measured of this very network,
    None where nothing was. ``unknown`` are the kinds without measurement; ``free`` the groups whose width
    may be any number, ``[groups]``: those that are no outer factor (heads, norm groups).
    """

    kernels: tuple[Kernel, ...]
    kinds: tuple[Kind, ...]
    weights: tuple[Mapping[str, float], ...]
    overhead: float
    calibrated: Network | None
    unknown: tuple[str, ...]
    full: Widths
    free: Mask

    def per_kernel(self, widths: Widths) -> Floats:
        """Seconds of every kernel, ``[kernels]`` at ``[groups]``, or ``[variants, kernels]`` at several widths."""
        many = np.atleast_2d(np.asarray(widths, np.int64))
        result = np.zeros((len(many), len(self.kernels)))
        for kind, weights in zip(self.kinds, self.weights, strict=True):
            features = kind.features(many)
            result[:, kind.members] = sum((w * features[f]() for f, w in weights.items()), np.zeros(1))
        return result if np.ndim(widths) > 1 else result[0]

    def sweep(self, many: Widths) -> Floats:
        """Seconds at several widths, ``[variants, groups]`` to ``[variants]``."""
        return self.overhead + np.asarray(self.per_kernel(many).sum(-1))

    def value(self, widths: Widths) -> float:
        """Seconds at these widths, ``[groups]``."""
        return float(self.sweep(np.asarray(widths)[None])[0])

    def gradient(self, widths: Widths) -> Floats:
        """Seconds that a channel of every group takes, ``[groups]``: the mean of a step down.

        The step is that to the next width below that is a multiple of the group's or of a larger candidate, by which a
        channel saves most: at the nearest one time may rise, where larger multiples are faster still.
        """
        widths = np.asarray(widths, np.int64)
        larger = np.maximum(self.multiples, np.array(CANDIDATES)[:, None])
        multiples = np.where(self.rises, larger, 1)  # [steps, groups]
        below = (widths - 1).clip(0) // multiples * multiples
        below = np.unique(np.where((below == 0) & (widths > 1), 1, below), axis=0)  # many candidates are one step
        many = np.repeat(widths[None], below.size, 0)
        many[np.arange(below.size), np.tile(np.arange(len(widths)), len(below))] = below.ravel()
        saved = self.value(widths) - self.sweep(many).reshape(below.shape)
        steepest: Floats = (saved / np.maximum(widths - below, 1)).max(0)
        return np.maximum(steepest, 0.0)

    @property
    def rises(self) -> Mask:
        """The groups whose time falls in steps, ``[groups]``: off a multiple it is longer than at the next one up."""
        return self.multiples > 1

    @cached_property
    def multiples(self) -> Widths:
        """The multiple that the machine rewards, ``[groups]``; 1 where it has no preference.

        Time over width lies above its lower convex hull where channels could be had for less than they cost. Of the
        candidates, the smallest that avoids most of that.
        """
        result = np.ones(len(self.full), np.int64)
        for g in np.flatnonzero(self.free & (self.full > 4)):
            window = np.arange(max(1, self.full[g] - WINDOW), self.full[g] + 1)
            many = np.repeat(self.full[None], len(window), 0)
            many[:, g] = window
            excess = _above_hull(window, self.sweep(many))
            if excess.mean() <= NEGLIGIBLE * self.value(self.full) / len(self.full):
                continue
            waste = {q: excess[window % q == 0].mean() for q in CANDIDATES if (window % q == 0).any()}
            result[g] = next((q for q, each in waste.items() if each <= ENOUGH * waste[1]), 1)
        return result


def _above_hull(x: Array, y: Floats) -> Floats:
    """How far points lie above their lower convex hull."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) > 1 and _turns_up(x, y, hull[-2], hull[-1], i) <= 0:
            hull.pop()
        hull.append(i)
    return np.asarray(y - np.interp(x, x[hull], y[hull]))


def _turns_up(x: Array, y: Floats, a: int, b: int, c: int) -> float:
    """Positive where the way from a by b to c turns upwards."""
    return float((x[b] - x[a]) * (y[c] - y[a]) - (x[c] - x[a]) * (y[b] - y[a]))


def measured(analysis: Analysis, machine: Machine) -> Measured:
    """The measured latency of a network on a machine.

    Raises:
        DeviceError: the measurement of no network is over.
    """
    if not any(n.coefficients for n in machine.networks.values()):
        message = "no network is measured to the end in this device file; run `onnxmorph calibrate` again to go on"
        raise DeviceError(message, code="device-measured")
    found = kernels(analysis)
    key = key_of(analysis, found)
    overhead, coefficients = machine.coefficients(key)
    own = machine.networks.get(key)
    return predictor(analysis, found, overhead, coefficients, own if own and own.coefficients else None)


def predictor(
    analysis: Analysis,
    found: tuple[Kernel, ...],
    overhead: float,
    coefficients: Coefficients,
    own: Network | None = None,
) -> Measured:
    """From coefficients; those of ``ANY`` stand in for kinds that have none.

    Raises:
        DeviceError: a coefficient is for what kernels of its kind do not have.
    """
    each = kinds(analysis, found)
    for kind in each:
        known = kind.features(analysis.widths[None])
        wrong = [f for f in coefficients.get(kind.name, coefficients.get(ANY, {})) if f not in known]
        if wrong:
            message = f"kernels of the kind {kind.name!r} have no {wrong[0]!r}; calibrate into a new device file"
            raise DeviceError(message, code="device-key")
    unknown = tuple(k.name for k in each if k.name not in coefficients)
    weights = tuple(coefficients.get(k.name, coefficients.get(ANY, {})) for k in each)
    return Measured(found, each, weights, overhead, own, unknown, analysis.widths, ~analysis.outer)
