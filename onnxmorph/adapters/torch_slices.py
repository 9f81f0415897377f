"""Slices of a module's parameters: measured, scaled, zeroed in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnxmorph.magnitudes import Dead, Slices

SHUT = 1e-6  # the least probability that a logit is given
Places = list[tuple[Tensor, int, Tensor]]  # tensor, axis, positions


@dataclass(frozen=True)
class Tensors:
    """The tensors of `Slices`, in their order."""

    each: tuple[Tensor, ...]
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    gates: tuple[bool, ...]  # logits of gates: what counts is their probability of being open

    @staticmethod
    def of(slices: Slices, by_name: Mapping[str, Tensor], logits: Mapping[str, Tensor]) -> Tensors:
        """Those of a module, and of its gates."""
        names, axes = [n for n, _ in slices.places], tuple(a for _, a in slices.places)
        each = tuple(logits[n] if n in logits else by_name[n] for n in names)
        return Tensors(each, axes, slices.sizes, tuple(n in logits for n in names))

    def norms(self) -> Tensor:
        """√Σ squares of the slice at every position, float32, ``[positions]``, with gradient."""
        given = zip(self.each, self.axes, self.gates, strict=True)
        return _joined([t.sigmoid().float() if gate else _norm(t, axis) for t, axis, gate in given])

    def means(self, of: Sequence[Tensor]) -> Tensor:
        """The mean over the slice at every position of tensors like these, float32, ``[positions]``."""
        given = zip(of, self.axes, strict=True)
        return _joined([t.float().mean(_others(t, a)) if t.ndim > 1 else t.float() for t, a in given])

    def multiply(self, factors: NDArray[np.float32]) -> None:
        """Scale every position, ``[positions]``, in place."""
        parts = torch.from_numpy(factors).to(self.each[0].device, non_blocking=True).split(self.sizes)
        if all(t.ndim == 1 and t.dtype == torch.float32 for t in self.each) and not any(self.gates):
            torch._foreach_mul_(self.each, parts)
            return
        for tensor, axis, part, gate in zip(self.each, self.axes, parts, self.gates, strict=True):
            if gate:
                tensor.copy_((tensor.sigmoid() * part).logit(SHUT))
            else:
                tensor.mul_(part.to(tensor.dtype).view([-1 if t == axis else 1 for t in range(tensor.ndim)]))


def _others(tensor: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(t for t in range(tensor.ndim) if t != axis)


def _norm(tensor: Tensor, axis: int) -> Tensor:
    if tensor.ndim == 1:
        return tensor.abs().float()
    return torch.linalg.vector_norm(tensor, dim=_others(tensor, axis), dtype=torch.float32)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0)


def places(dead: Dead, by_name: Mapping[str, Tensor]) -> Places:
    """Positions of a module's tensors."""
    return [(by_name[n], axis, torch.from_numpy(at).to(by_name[n].device)) for n, axis, at in dead]


def zero(dead: Places) -> None:
    """In place."""
    for tensor, axis, positions in dead:
        tensor.index_fill_(axis, positions, 0)
