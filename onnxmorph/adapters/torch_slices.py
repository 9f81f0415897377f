"""Channels as slices of torch tensors: measured, scaled and zeroed in a handful of tensor operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from onnxmorph.adapters.torch_loop import of_first_rank
from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats, Mask


@dataclass(frozen=True)
class Slices:
    """Axes of tensors, end to end: position p of the whole belongs to the channels ``rows[p]`` (0: to none)."""

    tensors: tuple[Tensor, ...]
    axes: tuple[int, ...]
    rows: Array  # [positions, columns]

    @staticmethod
    def of(
        analysis: Analysis, tensors: Mapping[str, Tensor], places: Iterable[tuple[str, int]], groups: Mask
    ) -> Slices:
        """Slices at these (name, axis); only channels of the given groups, ``[groups]``, count."""
        places = list(dict.fromkeys(places))
        mine = np.append(groups, False)[analysis.group_of]
        parts = [np.where(mine[r], r, 0) for n, a in places if (r := analysis.rows[n][a]) is not None]
        columns = max((part.shape[1] for part in parts), default=1)
        rows = np.concatenate(
            [np.pad(part, ((0, 0), (0, columns - part.shape[1]))) for part in parts]
            or [np.zeros((0, columns), np.int64)]
        )
        return Slices(tuple(tensors[n] for n, _ in places), tuple(a for _, a in places), rows)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Positions of each axis."""
        return tuple(t.shape[a] for t, a in zip(self.tensors, self.axes, strict=True))

    def norms(self) -> Tensor:
        """√Σ squares of the slice at every position, float32, ``[positions]``."""
        return torch.cat([_norm(t, a) for t, a in zip(self.tensors, self.axes, strict=True)])

    def multiply(self, factors: Floats) -> None:
        """Scale every position by the product of its channels' factors, ``[channels + 1]``, in place."""
        each = factors[self.rows].prod(1).astype(np.float32)
        first = self.tensors[0]
        parts = torch.from_numpy(each).to(first.device).split(self.sizes)
        if all(t.ndim == 1 and t.dtype == torch.float32 for t in self.tensors):
            torch._foreach_mul_(self.tensors, parts)
            return
        for tensor, axis, part in zip(self.tensors, self.axes, parts, strict=True):
            tensor.mul_(part.to(tensor.dtype).view([-1 if t == axis else 1 for t in range(tensor.ndim)]))

    def dead(self, alive: Mask) -> list[tuple[Tensor, int, Tensor]]:
        """Where channels are dead: tensor, axis, positions."""
        silent = torch.from_numpy(~alive[self.rows].all(1)).split(self.sizes)
        return [
            (tensor, axis, mask.nonzero()[:, 0].to(tensor.device))
            for tensor, axis, mask in zip(self.tensors, self.axes, silent, strict=True)
            if bool(mask.any())
        ]


def _norm(tensor: Tensor, axis: int) -> Tensor:
    if tensor.ndim == 1:
        return tensor.abs().float()
    others = tuple(t for t in range(tensor.ndim) if t != axis)
    return torch.linalg.vector_norm(tensor, dim=others, dtype=torch.float32)


@dataclass(frozen=True)
class Magnitudes:
    """What makes up the magnitude of each channel: scales of norms, or all its slices."""

    scales: Slices
    weights: Slices
    how: str  # several scales of one channel combine by "rms" or "max"; slices always by rms
    channels: int  # with channel 0

    @cached_property
    def _entries(self) -> tuple[Array, Array]:
        """Positions of both, end to end, and the channel that each is part of; a position may be in several."""
        columns = max(self.scales.rows.shape[1], self.weights.rows.shape[1])
        rows = np.concatenate(
            [np.pad(s.rows, ((0, 0), (0, columns - s.rows.shape[1]))) for s in (self.scales, self.weights)]
        )
        at, column = np.nonzero(rows)
        return at, rows[at, column]

    @cached_property
    def ids(self) -> frozenset[int]:
        """Of all sliced tensors."""
        return frozenset(id(t) for s in (self.scales, self.weights) for t in s.tensors)

    @cached_property
    def _elements(self) -> Floats:
        """How many numbers each channel's magnitude is the mean of, at least 1, ``[channels]``."""
        at, channel = self._entries
        counts = [
            np.full(n, t.numel() // n)
            for s in (self.scales, self.weights)
            for t, n in zip(s.tensors, s.sizes, strict=True)
        ]
        sizes = np.concatenate([*counts, np.zeros(0, np.int64)])
        return np.maximum(1, np.bincount(channel, sizes[at], minlength=self.channels)).astype(float)

    def _norms(self) -> Tensor:
        parts = [s.norms() for s in (self.scales, self.weights) if s.tensors]
        return torch.cat(parts) if parts else torch.zeros(0)

    def measure(self) -> Floats:
        """The magnitude of every channel, ``[channels]``, the same on all ranks; 0 where it has none."""
        at, channel = self._entries
        norms = of_first_rank(self._norms()).cpu().numpy().astype(float)[at]
        found: Floats = np.sqrt(np.bincount(channel, norms**2, minlength=self.channels) / self._elements)
        if self.how == "max":
            of_scale = at < len(self.scales.rows)
            largest = np.zeros(self.channels)
            np.maximum.at(largest, channel[of_scale], norms[of_scale])
            found = np.where(self._has_scale, largest, found)
        return found

    @cached_property
    def _has_scale(self) -> Mask:
        return np.isin(np.arange(self.channels), self.scales.rows[self.scales.rows > 0])

    def differentiable(self) -> Tensor:
        """`measure` as a float32 tensor with gradient; the gradient at 0 is 0."""
        norms = self._norms()
        at, channel = (torch.from_numpy(a).to(norms.device) for a in self._entries)
        zeros = norms.new_zeros(self.channels)
        elements = torch.from_numpy(self._elements).to(norms)
        mean = zeros.index_add(0, channel, norms[at].square()) / elements
        found = torch.where(mean > 0, mean, 1.0).sqrt() * (mean > 0)
        if self.how == "max":
            of_scale = at < len(self.scales.rows)
            largest = zeros.scatter_reduce(0, channel[of_scale], norms[at][of_scale], "amax")
            found = torch.where(torch.from_numpy(self._has_scale).to(norms.device), largest, found)
        return found

    def mean(self, of: Mapping[int, Tensor], measured: bool = False) -> Floats:
        """Per channel the mean over what makes up its magnitude, ``[channels]``.

        `of` gives, by the id of each sliced tensor, a tensor of its shape, or a single number for all of it. What was
        measured is the same on all ranks.
        """
        at, channel = self._entries
        parts = []
        for slices in (self.scales, self.weights):
            for tensor, axis, n in zip(slices.tensors, slices.axes, slices.sizes, strict=True):
                each = of[id(tensor)]
                others = tuple(t for t in range(each.ndim) if t != axis)
                parts.append((each.mean(others) if others else each).float().expand(n))
        joined = torch.cat(parts) if parts else torch.zeros(0)
        values = (of_first_rank(joined) if measured else joined).cpu().numpy().astype(float)[at]
        total = np.bincount(channel, values, minlength=self.channels)
        return total / np.maximum(1, np.bincount(channel, minlength=self.channels))
