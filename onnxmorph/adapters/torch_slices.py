"""Slices of a module's parameters: measured, scaled, zeroed in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnxmorph.adapters.torch_sharded import added_up, counts, held, mine
from onnxmorph.magnitudes import Dead, Slices

SHUT = 1e-6  # the least probability that a logit is given
Places = list[tuple[Tensor, int, Tensor]]  # tensor, axis, positions


@dataclass(frozen=True)
class Tensors:
    """The tensors of `Slices`, in their order; of sharded ones this rank changes what it has, and all measure together.

    Attributes:
        held: the positions along its axis that this rank has of each; None where it has all.
        gates: whether they are logits of gates: what counts is their probability of being open.
    """

    each: tuple[Tensor, ...]
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    held: tuple[Tensor | None, ...]
    gates: tuple[bool, ...]

    @staticmethod
    def of(slices: Slices, by_name: Mapping[str, Tensor], logits: Mapping[str, Tensor]) -> Tensors:
        """Those of a module, and of its gates."""
        names, axes = [n for n, _ in slices.places], tuple(a for _, a in slices.places)
        each = tuple(logits[n] if n in logits else by_name[n] for n in names)
        return Tensors(each, axes, slices.sizes, tuple(map(held, each, axes)), tuple(n in logits for n in names))

    def norms(self) -> Tensor:
        """√Σ squares of the slice at every position, float32, ``[positions]``, with gradient."""
        given = zip(self.each, self.axes, self.gates, strict=True)
        norms = [t.sigmoid().float() if gate else _norm(mine(t), axis) for t, axis, gate in given]
        if not self._sharded:
            return _joined(norms)
        squares = self._spread([norm.square() for norm in norms])
        root = added_up(squares.detach() * self._counts).sqrt()
        return root + (squares - squares.detach()) / (2 * root).clamp(min=1e-30)  # d√s = ds / 2√s, of this rank's s

    def means(self, of: Sequence[Tensor]) -> Tensor:
        """The mean over the slice at every position of tensors like these, float32, ``[positions]``."""
        given = [(mine(t).float(), a, t.numel() // n) for t, a, n in zip(of, self.axes, self.sizes, strict=True)]
        means = [t.sum(_others(t, a)) / count if t.ndim > 1 else t for t, a, count in given]
        return added_up(self._spread(means) * self._counts) if self._sharded else _joined(means)

    def sensitivities(self) -> Tensor:
        """Σ w · ∂L/∂w over the slice at every position, float32, ``[positions]``; 0 where there is no gradient."""
        parts, products = [], dict[int, Tensor]()
        for t, axis in zip(self.each, self.axes, strict=True):
            if id(t) not in products:  # one tensor's axes stand together
                products = {id(t): _product(t)}
            product = products[id(t)]
            parts.append(product.sum(_others(t, axis), dtype=torch.float32) if t.ndim > 1 else product.float())
        return added_up(self._spread(parts) * self._counts) if self._sharded else _joined(parts)

    def multiply(self, factors: NDArray[np.float32]) -> None:
        """Scale every position, ``[positions]``, in place."""
        parts = torch.from_numpy(factors).to(self.each[0].device, non_blocking=True).split(self.sizes)
        parts = [part if at is None else part[at] for part, at in zip(parts, self.held, strict=True)]
        tensors = [mine(t) for t in self.each]
        if all(t.ndim == 1 and t.dtype == torch.float32 for t in tensors) and not any(self.gates):
            torch._foreach_mul_(tensors, parts)
            return
        for tensor, axis, part, gate in zip(tensors, self.axes, parts, self.gates, strict=True):
            if gate:
                tensor.copy_((tensor.sigmoid() * part).logit(SHUT))
            else:
                tensor.mul_(part.to(tensor.dtype).view([-1 if t == axis else 1 for t in range(tensor.ndim)]))

    @cached_property
    def _sharded(self) -> bool:
        return any(at is not None for at in self.held)

    @cached_property
    def _counts(self) -> Tensor:
        """1 where this rank's part counts in a sum over ranks, ``[positions]``."""
        each = [torch.full((n,), float(counts(t))) for t, n in zip(self.each, self.sizes, strict=True)]
        return torch.cat(each).to(self.each[0].device)

    def _spread(self, parts: list[Tensor]) -> Tensor:
        """What this rank has of each, at the positions of the whole, ``[positions]``; 0 elsewhere."""
        given = zip(parts, self.held, self.sizes, strict=True)
        return torch.cat([p if at is None else p.new_zeros(n).index_copy(0, at, p) for p, at, n in given])


def _others(tensor: Tensor, axis: int) -> tuple[int, ...]:
    return tuple(t for t in range(tensor.ndim) if t != axis)


def _norm(tensor: Tensor, axis: int) -> Tensor:
    if tensor.ndim == 1:
        return tensor.abs().float()
    return torch.linalg.vector_norm(tensor, dim=_others(tensor, axis), dtype=torch.float32)


def _product(tensor: Tensor) -> Tensor:
    """The product w · ∂L/∂w, of what this rank has."""
    weights, gradient = mine(tensor), tensor.grad
    if gradient is None:
        return torch.zeros_like(weights)
    return weights * (gradient.to_dense() if gradient.is_sparse else mine(gradient))


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0)


def places(dead: Dead, by_name: Mapping[str, Tensor]) -> Places:
    """Positions of a module's tensors, as this rank counts them."""
    return [(by_name[n], axis, _here(by_name[n], axis, torch.from_numpy(at))) for n, axis, at in dead]


def _here(tensor: Tensor, axis: int, positions: Tensor) -> Tensor:
    at, positions = held(tensor, axis), positions.to(tensor.device)
    return positions if at is None else torch.isin(at, positions).nonzero()[:, 0]


def zero(dead: Places) -> None:
    """In place."""
    for tensor, axis, positions in dead:
        mine(tensor).index_fill_(axis, positions, 0)
