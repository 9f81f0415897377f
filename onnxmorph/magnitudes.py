"""Which slices of parameters make up the magnitude of a channel, and how several of them combine.

A framework measures ``√Σ squares`` of every slice; all else is arithmetic on arrays of one entry per position or per
channel, numbered as in an `Analysis`: channel 0 stands for what is always alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask

Place = tuple[str, int]  # an axis of a parameter
Dead = list[tuple[str, int, Array]]  # an axis of a parameter, and positions along it

COMBINATIONS = ("rms", "l2", "sum", "max", "or")


def combine(sources: Floats, how: str = "rms") -> Floats:
    """The magnitude of channels that have several sources, ``[channels, sources] -> [channels]``.

    ``rms`` is √mean s²; ``l2`` √Σ s²; ``sum`` Σ |s|, as DepGraph adds up coupled slices (arXiv 2301.12900); ``max``
    the published rule for channels that meet in a residual sum (arXiv 1711.06798); ``or`` 1 − ∏ (1 − |s|) for
    probabilities, which are cut off at 1: that of any of several independent gates being open.

    >>> combine(np.array([[0.5, 0.5]]), "or").tolist()
    [0.75]
    """
    size = np.abs(np.asarray(sources, float))
    found: Floats
    if how == "max":
        found = size.max(1)
    elif how == "sum":
        found = size.sum(1)
    elif how == "or":
        found = 1 - (1 - np.minimum(size, 1)).prod(1)
    else:
        found = np.sqrt((size**2).sum(1) / (size.shape[1] if how == "rms" else 1))
    return found


@dataclass(frozen=True)
class Slices:
    """Axes of parameters, end to end: position p of the whole belongs to the channels ``rows[p]`` (0: to none)."""

    places: tuple[Place, ...]
    sizes: tuple[int, ...]  # positions of each
    rows: Array  # [positions, columns]

    @staticmethod
    def of(analysis: Analysis, *wanted: tuple[Iterable[Place], Mask]) -> Slices:
        """Slices at places, each with the groups, ``[groups]``, whose channels count there; all that ask for it do."""
        of: dict[Place, Mask] = {}
        for places, groups in wanted:
            for place in places:
                of[place] = of.get(place, False) | groups
        given = ((place, analysis.rows[place[0]][place[1]], np.append(mask, False)) for place, mask in of.items())
        return Slices.joined({p: np.where(m[analysis.group_of[r]], r, 0) for p, r, m in given if r is not None})

    @staticmethod
    def joined(parts: Mapping[Place, Array]) -> Slices:
        """Slices from the channels of every position, ``[positions, columns]``, by place."""
        columns = max((part.shape[1] for part in parts.values()), default=1)
        padded = [np.pad(part, ((0, 0), (0, columns - part.shape[1]))) for part in parts.values()]
        rows = np.concatenate([*padded, np.zeros((0, columns), np.int64)])
        return Slices(tuple(parts), tuple(len(part) for part in parts.values()), rows)

    @property
    def parts(self) -> dict[Place, Array]:
        """The channels of every position, ``[positions, columns]``, by place."""
        return (
            dict(zip(self.places, np.split(self.rows, np.cumsum(self.sizes)[:-1]), strict=True)) if self.sizes else {}
        )

    @property
    def positions(self) -> int:
        """How many there are in all."""
        return len(self.rows)

    def split(self, values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """Values per position, ``[positions]``, as one array for each place."""
        return np.split(values, np.cumsum(self.sizes)[:-1])

    def factors(self, each: Floats) -> NDArray[np.float32]:
        """What every position is multiplied with: the product over its channels, ``[channels] -> [positions]``."""
        product: NDArray[np.float32] = each[self.rows].prod(1).astype(np.float32)
        return product

    def dead(self, alive: Mask) -> Dead:
        """The positions with a channel that is not alive, ``[channels]``, at every place that has any."""
        silent = self.split(np.asarray(~alive[self.rows].all(1)))
        found = zip(self.places, silent, strict=True) if self.places else ()
        return [(name, axis, np.flatnonzero(each)) for (name, axis), each in found if each.any()]


@dataclass(frozen=True)
class Sources:
    """What makes up the magnitude of each channel.

    Attributes:
        slices: that are measured and shrunk.
        elements: how many numbers the norm of each position is of, ``[positions]``.
        how: for each combination the channels that it is for, ``[channels]``.
    """

    slices: Slices
    elements: Array
    how: Mapping[str, Mask]
    channels: int  # with channel 0

    @cached_property
    def _entries(self) -> tuple[Array, Array]:
        """Positions, and the channel that each is part of; a position may be part of several."""
        at, column = np.nonzero(self.slices.rows)
        return at, self.slices.rows[at, column]

    def _sum(self, values: Floats) -> Floats:
        return np.bincount(self._entries[1], values, minlength=self.channels).astype(float)

    @cached_property
    def _count(self) -> Floats:
        """How many numbers each channel's magnitude is the mean of, at least 1, ``[channels]``."""
        return np.maximum(1.0, self._sum(self.elements[self._entries[0]].astype(float)))

    def combine(self, norms: NDArray[np.floating]) -> Floats:
        """The magnitude of every channel, ``[positions] -> [channels]``; 0 where it has none."""
        at, channel = self._entries
        each = norms.astype(float)[at]
        found = np.sqrt(self._sum(each**2) / self._count)
        for how, of in self.how.items():
            if how == "l2":
                other = np.sqrt(self._sum(each**2))
            elif how == "sum":
                other = self._sum(each)
            elif how == "max":
                other = np.zeros(self.channels)
                np.maximum.at(other, channel, each)
            elif how == "or":
                with np.errstate(divide="ignore"):
                    other = -np.expm1(self._sum(np.log1p(-np.minimum(each, 1.0))))
            else:
                continue
            found = np.where(of, other, found)
        return found

    def slopes(self, norms: NDArray[np.floating], weights: Floats) -> Floats:
        """The gradient of ``Σ weights · magnitudes`` over channels with respect to the norms, ``[positions]``.

        Where a magnitude is 0 its gradient is taken as 0; of several that are largest the first counts.
        """
        at, channel = self._entries
        each, total = norms.astype(float)[at], self.combine(norms)[channel]
        live = total > 0
        inverse = np.divide(1.0, total, out=np.zeros(len(total)), where=live)
        slope = each * inverse / self._count[channel]
        for how, of in self.how.items():
            if how == "l2":
                other = each * inverse
            elif how == "sum":
                other = live.astype(float)
            elif how == "max":
                first = np.full(self.channels, len(at))
                largest = np.flatnonzero(live & (each == total))
                np.minimum.at(first, channel[largest], largest)
                other = (first[channel] == np.arange(len(at))).astype(float)
            elif how == "or":
                other = np.divide(1 - total, 1 - each, out=np.zeros(len(each)), where=live & (each < 1))
            else:
                continue
            slope = np.where(of[channel], other, slope)
        return np.bincount(at, slope * weights[channel], minlength=self.slices.positions).astype(float)

    def mean(self, values: NDArray[np.floating]) -> Floats:
        """Per channel the mean over the positions that make up its magnitude, ``[positions] -> [channels]``."""
        at, channel = self._entries
        count = np.maximum(1, np.bincount(channel, minlength=self.channels))
        return self._sum(values.astype(float)[at]) / count
