"""The penalty in a PyTorch training loop: build a `Morph`, call ``step()`` after ``optimizer.step()``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxmorph.adapters.torch_resize import (
    Hook,
    Probe,
    agree,
    load_weights,
    locked_groups,
    passing,
    resize,
    tensors,
)
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.axes import Array
from onnxmorph.budget import Budget
from onnxmorph.converters.torch import export
from onnxmorph.errors import BudgetError, StructureError
from onnxmorph.penalty import Controller, Floats, Schedule
from onnxmorph.structure import Structure

__all__ = ["Morph", "load_weights", "resize"]

EXACT = 1e-5  # relative; zeroing what is zero already changes nothing but the order of sums
METHODS = ("proximal", "loss")


@dataclass(frozen=True)
class Slices:
    """Axes of tensors, end to end: position p of the whole belongs to the channels ``rows[p]`` (0: to none)."""

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    axes: tuple[int, ...]
    rows: Array  # [positions, columns]

    @staticmethod
    def of(analysis: Analysis, by_name: Mapping[str, Tensor], chosen: Iterable[tuple[str, int]], of: Array) -> Slices:
        """Those of `chosen` (name, axis); only the channels of the groups numbered in `of` count."""
        places = list(chosen)
        mine = np.append(np.isin(np.arange(len(analysis.groups)), of), False)[analysis.group_of]
        parts = [np.where(mine[r], r, 0) for n, a in places if (r := analysis.rows[n][a]) is not None]
        rows = np.zeros((sum(map(len, parts)), max((r.shape[1] for r in parts), default=1)), np.int64)
        start = 0
        for part in parts:
            rows[start : start + len(part), : part.shape[1]] = part
            start += len(part)
        names, axes = tuple(n for n, _ in places), tuple(a for _, a in places)
        return Slices(names, tuple(by_name[n] for n in names), axes, rows)

    @property
    def sizes(self) -> list[int]:
        """Positions of each axis."""
        return [t.shape[a] for t, a in zip(self.tensors, self.axes, strict=True)]

    def norms(self) -> Tensor:
        """√Σ squares of every position's slice, ``[positions]``."""
        return torch.cat([_norm(t, a) for t, a in zip(self.tensors, self.axes, strict=True)])

    def multiply(self, factors: Floats) -> None:
        """Scale every position by the product of its channels' factors, ``[channels + 1]``, in place."""
        each = factors[self.rows].prod(1)
        parts = torch.from_numpy(each.astype(np.float32)).to(self.tensors[0].device).split(self.sizes)
        whole = [t if t.ndim > 1 else None for t in self.tensors]
        if not any(t is not None for t in whole) and len({t.dtype for t in self.tensors}) == 1:
            torch._foreach_mul_(list(self.tensors), [p.to(self.tensors[0].dtype) for p in parts])
            return
        for tensor, axis, part in zip(self.tensors, self.axes, parts, strict=True):
            tensor.mul_(part.to(tensor.dtype).view([-1 if t == axis else 1 for t in range(tensor.ndim)]))


def _norm(tensor: Tensor, axis: int) -> Tensor:
    if tensor.ndim == 1:
        return tensor.abs().float()
    others = tuple(t for t in range(tensor.ndim) if t != axis)
    return torch.linalg.vector_norm(tensor, dim=others, dtype=torch.float32)


class Morph:
    """Trains a module towards a budget, in the user's own loop.

    >>> morph = Morph(module, inputs, optimizer, "flops=50%", steps=1000)  # doctest: +SKIP
    >>> for x, y in batches:                                               # doctest: +SKIP
    ...     loss(module(x), y).backward(); optimizer.step(); optimizer.zero_grad()
    ...     morph.step()

    Every channel is charged what it costs; the strength is steered so that the budget is met at the planned
    step. A channel that went is exactly zero in all its parameter slices, and stays so: the masked module is
    the shrunk network. Call ``step()`` once per ``optimizer.step()``, however many batches were accumulated.

    Attributes:
        analysis: of the exported module.
        magnitudes: group id to ``norm`` (scales of BatchNorm) or ``lasso`` (all coupled slices).
        locked: group id to the reason why it keeps all its channels.

    Source: MorphNet (arXiv 1711.06798); the proximal step in place of the gradient of the penalty, because
    adaptive optimizers divide a gradient by its own size, prices included.
    """

    def __init__(
        self,
        module: nn.Module,
        example_inputs: Tensor | Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
        budget: str | Budget,
        *,
        steps: int,
        method: str = "proximal",
        magnitudes: str | Mapping[str, str] = "auto",
        on_resize: Hook | None = None,
    ) -> None:
        """Export, analyse, and try out what can be resized; the module stays as it is.

        Args:
            module: what is trained (inside any wrapper for compiling or distributing it).
            example_inputs: ``forward``'s positional tensors.
            optimizer: holds the module's parameters; its learning rates scale the proximal step.
            budget: e.g. ``"flops=50%"``, shares of the whole module.
            steps: planned calls of `step`; by then the budget is met.
            method: ``proximal``, or ``loss`` where `loss_term` is added to the loss (the published form).
            magnitudes: ``auto``, ``norm`` or ``lasso``, or group id to one of them. auto takes the norm's
                scales wherever scale and shift at zero silence the channel, which is tried out.
            on_resize: see `resize`; where it fixes up attributes, groups that need it are not locked.

        Raises:
            BudgetError: the budget is malformed or out of reach.
            ConversionError: the module cannot be exported.
            StructureError: an unknown method or magnitude.
        """
        if method not in METHODS:
            raise StructureError(f"there is no method {method!r}; it is one of {', '.join(METHODS)}", code="method")
        if steps < 1:
            raise BudgetError("steps must be 1 or more: how often step() will be called", code="steps")
        inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        self.module, self.optimizer, self.method, self.on_resize = module, optimizer, method, on_resize
        self.budget = Budget.parse(budget)
        self.analysis = analyze(export(module, inputs))
        by_name = tensors(module)
        self._tensors = {n: by_name[n] for n in self.analysis.parameters if n in by_name}
        trained = {id(p) for g in optimizer.param_groups for p in g["params"] if p.requires_grad}
        self._trained = {n for n, t in self._tensors.items() if id(t) in trained}
        probe = Probe.of(module, inputs, self.analysis, on_resize)
        ids = [g.id for g in self.analysis.groups]
        locked = locked_groups(probe)
        for g, group in enumerate(self.analysis.groups):
            if not any(m.tensor in self._trained for m in group.members):
                locked.setdefault(g, "none of its parameters is trained")
        self.locked = {ids[g]: reason for g, reason in sorted(locked.items())}
        norm = self._choose(magnitudes, probe, frozenset(range(len(ids))) - locked.keys())
        self.magnitudes = {
            id: "norm" if g in norm else "lasso" for g, id in enumerate(ids) if g not in locked
        }
        prunable, lingers = np.ones(len(ids), bool), np.zeros(len(ids), bool)
        prunable[list(locked)] = False
        lingers[list(norm)] = True
        self._build_slices(np.flatnonzero(lingers), np.flatnonzero(prunable & ~lingers))
        self._controller = Controller(
            self.analysis, self.budget, Schedule.of(steps), prunable, lingers, shrinks=method == "proximal"
        )
        self._dead: list[tuple[Tensor, int, Tensor]] = []
        self._rates_of: tuple[float, ...] = ()
        with torch.no_grad():
            self._controller.aim(self._measure(), self._rates())

    # -- what makes up a magnitude ----------------------------------------------------------------

    def _axes(self, group: int, roles: Sequence[str | None]) -> list[tuple[str, int]]:
        members = self.analysis.groups[group].members
        return [
            (m.tensor, m.axis)
            for m in members
            if m.tensor in self._tensors and self.analysis.roles.get(m.tensor) in roles
        ]

    def _quiet(self, group: int) -> list[tuple[str, int]]:
        """Scales, shifts and biases: at zero they silence a channel that every way out of is normalised."""
        return [(n, a) for n, a in self._axes(group, (None, "scale", "shift")) if self._tensors[n].ndim == 1]

    def _choose(self, magnitudes: str | Mapping[str, str], probe: Probe, free: frozenset[int]) -> frozenset[int]:
        """The groups whose magnitude is the scale of a norm."""
        ids = [g.id for g in self.analysis.groups]
        asked = {ids[g]: magnitudes for g in free} if isinstance(magnitudes, str) else magnitudes
        unknown = [i for i in asked if i not in ids] + [
            m for m in asked.values() if m not in ("auto", "norm", "lasso")
        ]
        if unknown:
            message = f"magnitudes: {unknown[0]!r} is neither a group nor one of auto, norm, lasso"
            raise StructureError(message, code="magnitudes")
        scaled = {g for g in free if any(n in self._trained for n, _ in self._axes(g, ("scale",)))}
        wanted = {g for g in scaled if asked.get(ids[g], "auto") == "norm"}
        maybe = sorted(g for g in scaled - wanted if asked.get(ids[g], "auto") == "auto")

        def speaks(groups: frozenset[int]) -> str | None:
            alive = probe.cut(frozenset(g for g in groups if self.analysis.groups[g].width > 1), 0) > 0
            quiet = probe.masked(_by_name(a for g in groups for a in self._quiet(g)), alive)
            gone = probe.masked(_by_name(a for g in groups for a in self._axes(g, (None, "scale", "shift"))), alive)
            return None if agree(quiet, gone, EXACT) else "scale and shift at zero do not silence it"

        return passing(speaks, maybe)[0] | wanted

    def _build_slices(self, norm: Array, lasso: Array) -> None:
        def unique(places: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
            return list(dict.fromkeys(places))

        scales = unique(p for g in norm for p in self._axes(g, ("scale",)) if p[0] in self._trained)
        weights = unique(p for g in lasso for p in self._axes(g, (None, "scale", "shift")) if p[0] in self._trained)
        rest = unique(p for g in norm for p in self._quiet(g) if p not in scales)
        make = lambda places, of: Slices.of(self.analysis, self._tensors, places, of)  # noqa: E731 - two fixed arguments
        self._sources = [s for s in (make(scales, norm), make(weights, lasso)) if s.tensors]
        self._rest = make(rest, norm)
        # Each entry: position `_at` of the sources, end to end, is a source of channel `_channel`.
        rows = np.concatenate([np.pad(s.rows, ((0, 0), (0, 8 - s.rows.shape[1]))) for s in self._sources]) if self._sources else np.zeros((0, 1), np.int64)
        at, column = np.nonzero(rows)
        self._at, self._channel = at, rows[at, column]
        elements = np.concatenate(
            [np.full(n, t.numel() // n) for s in self._sources for t, n in zip(s.tensors, s.sizes, strict=True)] or [[]]
        )
        self._elements = np.bincount(self._channel, elements[at], minlength=self.analysis.channels + 1)
        self._entries = np.bincount(self._channel, minlength=self.analysis.channels + 1)
