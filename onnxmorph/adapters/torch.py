"""The penalty in a PyTorch training loop: build a `Morph`, call ``step()`` after ``optimizer.step()``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnxmorph import latency
from onnxmorph.adapters.torch_gradients import gradients
from onnxmorph.adapters.torch_probe import Place, Probe, locked_groups, silenced_groups
from onnxmorph.adapters.torch_resize import Hook, load_weights, resize, tensors
from onnxmorph.adapters.torch_slices import Magnitudes, Slices
from onnxmorph.analysis import analyze
from onnxmorph.axes import Floats, Mask
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.converters.torch import export
from onnxmorph.errors import BoundsError, BudgetError, StructureError
from onnxmorph.penalty import Controller, Schedule
from onnxmorph.structure import Structure

__all__ = ["Morph", "gradients", "load_weights", "resize"]

OFTEN = 10  # steps
METHODS = {"proximal": "rms", "loss": "max"}  # and how several scales of one channel combine there
SQUARES = ("exp_avg_sq", "square_avg", "sum")  # its name in the state of the Adam family, RMSprop, Adagrad
MAGNITUDES = ("auto", "norm", "lasso")

Dead = list[tuple[Tensor, int, Tensor]]  # tensor, axis, positions


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
        magnitudes: group id to ``norm`` (scales of normalisation layers) or ``lasso`` (all coupled slices).
        locked: group id to the reason why it keeps all its channels.

    Source: MorphNet (arXiv 1711.06798); the proximal step in place of the penalty's gradient, because adaptive
    optimizers divide a gradient by its own size, prices included.
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
        bounds: Bounds | None = None,
        device: str | os.PathLike[str] | None = None,
    ) -> None:
        """Export, analyse, and try out what can be resized; the module stays as it is.

        Args:
            module: what is trained (inside any wrapper that compiles or distributes it).
            example_inputs: ``forward``'s positional tensors.
            optimizer: holds the module's parameters; its learning rates scale the proximal step.
            budget: e.g. ``"flops=50%"``; shares are of the whole module.
            steps: planned calls of `step`; by then the budget is met.
            method: ``proximal``, or ``loss`` where `loss_term` is added to the loss (the published form).
            magnitudes: ``auto``, ``norm`` or ``lasso``, or group id to one of them. auto takes the scales of
                norms wherever zero scales, shifts and biases silence the channel, which is tried out.
            on_resize: see `resize`; groups that it takes care of are not locked.
            bounds: what has to stay, and least widths. Multiples are for `expand`: in training widths are free.
            device: where `budget` limits latency: the name of a device, or its file.

        Raises:
            BoundsError: a boundary names nothing in the export, or asks for multiples.
            BudgetError: the budget is malformed or out of reach.
            ConversionError: the module cannot be exported.
            DeviceError: the device is not known, or its file cannot be used.
            StructureError: an unknown method or magnitude.
        """
        if method not in METHODS:
            message = f"there is no method {method!r}; it is one of {', '.join(METHODS)}"
            raise StructureError(message, code="method")
        if steps < 1:
            raise BudgetError("steps is how often step() will be called; give 1 or more", code="steps")
        if bounds is not None and bounds.round_to:
            raise BoundsError("round_to is for expand(), not for training; leave it out here", code="bounds-training")
        inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        self.module, self.optimizer, self.method = module, optimizer, method
        self.budget = Budget.parse(budget)
        self.analysis = analyze(export(module, inputs), bounds=bounds)
        if device is not None:
            self.analysis = self.analysis.with_costs(**latency.costs(self.analysis, latency.load(device)))
        by_name = tensors(module)
        self._tensors = {n: by_name[n] for n in self.analysis.parameters if n in by_name}
        trained = {id(p) for g in optimizer.param_groups for p in g["params"] if p.requires_grad}
        self._trained = {n for n, t in self._tensors.items() if id(t) in trained}
        probe = Probe.of(module, inputs, self.analysis, on_resize)
        locked = {**self._untrained(), **locked_groups(probe)}
        free = [g for g in range(len(self.analysis.groups)) if g not in locked]
        norm = self._choose_norm(magnitudes, probe, free)
        ids = [g.id for g in self.analysis.groups]
        self.locked = {ids[g]: locked[g] for g in sorted(locked)}
        self.magnitudes = {ids[g]: "norm" if g in norm else "lasso" for g in free}
        self._dead: Dead = []
        self._dead_weights: Dead = []
        self._buried = np.zeros(self.analysis.channels + 1, bool)
        self._calls = 0
        self._controller = self._build(norm, set(free) - norm, steps)
        self._last_rates: tuple[float, ...] = ()
        with torch.no_grad():
            self._controller.aim(self._magnitudes.measure(), self._rates())

    # -- in the loop -----------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> None:
        """After ``optimizer.step()``: shrink what lives by its price, silence what went."""
        control = self._controller
        if not control.done:
            factors, rest = control.update(self._magnitudes.measure(), self._rates())
            if control.shrinks or not control.alive.all():
                for each in (self._magnitudes.scales, self._magnitudes.weights):
                    if each.tensors:
                        each.multiply(factors)
            if self._rest.tensors and not control.alive.all():
                self._rest.multiply(rest)
            if ((control.fading == 0) != self._buried).any():
                self._bury()
        _zero(self._dead)
        self._calls += 1
        if self._calls % OFTEN == 0:
            _zero(self._dead_weights)

    def _bury(self) -> None:
        """Make what died zero for good, in the parameters and in what the optimizer remembers of them.

        Squares may stay: they divide a step, and make none.

        Weights around a silent channel get no gradient, so without momentum they stay zero by themselves; they
        are most of the numbers, and zeroing them at every step would take longer than all the rest.
        """
        dead = self._controller.fading == 0
        new, self._buried = dead & ~self._buried, dead
        for slices in (*self._pinned, self._silenced):
            for tensor, axis, positions in slices.dead(~new):
                state = self.optimizer.state.get(tensor, {})
                same = (v for k, v in state.items() if isinstance(v, Tensor) and not k.endswith(SQUARES))
                _zero([(v, axis, positions) for v in (tensor, *same) if v.shape == tensor.shape])
        self._dead = [place for slices in self._pinned for place in slices.dead(~dead)]
        self._dead_weights = self._silenced.dead(~dead)

    def loss_term(self) -> Tensor:
        """``strength · Σ price · |magnitude|`` with gradient, a scalar: the published penalty, to add to the loss.

        Several scales of one channel combine by their maximum where the method is ``loss``.
        """
        found = self._magnitudes.differentiable()
        price = torch.from_numpy(self._controller.price * self._controller.alive).to(found)
        return self._controller.strength * (price @ found)

    @torch.no_grad()
    def finish(self) -> None:
        """Meet the budget now, by removing what is worth least for its price, and freeze."""
        self._controller.finish(self._magnitudes.measure(), self._rates())
        self._bury()

    # -- how it stands ---------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the budget is met and all that went is silent; from then on the structure is frozen."""
        return self._controller.done

    @property
    def strength(self) -> float:
        """λ: a channel loses learning rate · λ · price per step; 0 once the budget is met."""
        return self._controller.strength

    @property
    def cost(self) -> dict[str, float]:
        """The costs at the live widths."""
        return self.analysis.count(self._controller.widths)

    @property
    def widths(self) -> dict[str, int]:
        """Group id to live width."""
        ids = (g.id for g in self.analysis.groups)
        return dict(zip(ids, self._controller.widths.tolist(), strict=True))

    def structure(self) -> Structure:
        """The live channels."""
        return Structure.of(
            self.analysis,
            self._controller.alive.astype(np.int64),
            method=f"morph by {self.method}",
            budget=str(self.budget),
            steps=self._controller.step,
        )

    def state_dict(self) -> dict[str, Any]:
        """Numbers and lists for a checkpoint, beside those of the module and the optimizer."""
        return self._controller.state()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises StructureError where it is of another model."""
        self._controller.restore(state)
        self._buried[:] = False
        self._bury()

    # -- set-up ----------------------------------------------------------------------------------

    def _places(self, group: int, *roles: str | None) -> list[Place]:
        """Where the group's channels are sliced: parameters of these roles (None: weights and biases)."""
        members, role = self.analysis.groups[group].members, self.analysis.roles
        return [(m.tensor, m.axis) for m in members if m.tensor in self._tensors and role.get(m.tensor) in roles]

    def _whole(self, group: int) -> list[Place]:
        return self._places(group, None, "scale", "shift")

    def _quiet(self, group: int) -> list[Place]:
        """Scales, shifts and biases."""
        return [p for p in self._whole(group) if self._tensors[p[0]].ndim == 1]

    def _untrained(self) -> dict[int, str]:
        groups = range(len(self.analysis.groups))
        left = [g for g in groups if not any(n in self._trained for n, _ in self._whole(g))]
        return dict.fromkeys(left, "none of its parameters is trained by the optimizer")

    def _choose_norm(self, magnitudes: str | Mapping[str, str], probe: Probe, free: Sequence[int]) -> frozenset[int]:
        """The groups whose magnitude is the scales of norms."""
        ids = [g.id for g in self.analysis.groups]
        asked = dict.fromkeys(ids, magnitudes) if isinstance(magnitudes, str) else magnitudes
        wrong = [*(asked.keys() - set(ids)), *(set(asked.values()) - set(MAGNITUDES))]
        if wrong:
            message = f"magnitudes: {wrong[0]!r} is neither a group's id nor one of {', '.join(MAGNITUDES)}"
            raise StructureError(message, code="magnitudes")
        scaled = [g for g in free if any(n in self._trained for n, _ in self._places(g, "scale"))]
        told = {g: asked.get(ids[g], "auto") for g in scaled}
        open_ = [g for g in scaled if told[g] == "auto"]
        quiet, whole = ({g: places(g) for g in open_} for places in (self._quiet, self._whole))
        return silenced_groups(probe, open_, quiet, whole) | {g for g in scaled if told[g] == "norm"}

    def _build(self, norm: frozenset[int], lasso: set[int], steps: int) -> Controller:
        groups = np.arange(len(self.analysis.groups))
        by_norm, by_lasso = np.isin(groups, list(norm)), np.isin(groups, list(lasso))

        def slices(places: Sequence[Place], of: Mask) -> Slices:
            return Slices.of(self.analysis, self._tensors, places, of)

        scales = [p for g in norm for p in self._places(g, "scale") if p[0] in self._trained]
        weights = [p for g in lasso for p in self._whole(g) if p[0] in self._trained]
        how, channels = METHODS[self.method], self.analysis.channels + 1
        self._magnitudes = Magnitudes(slices(scales, by_norm), slices(weights, by_lasso), how, channels)
        self._rest = slices([p for g in norm for p in self._quiet(g) if p not in scales], by_norm)
        # What is dead is kept zero: now and then the weights that a norm silences, the rest at every step.
        self._silenced = slices([p for g in norm for p in self._whole(g) if p not in self._quiet(g)], by_norm)
        self._pinned = (
            slices([p for g in norm for p in self._quiet(g)], by_norm),
            slices([p for g in lasso for p in self._whole(g)], by_lasso),
        )
        shrinks, schedule = self.method == "proximal", Schedule.of(steps)
        return Controller(self.analysis, self.budget, schedule, by_norm | by_lasso, by_norm, shrinks=shrinks)

    def _rates(self) -> Floats:
        """How far a unit of penalty gradient moves each channel in a step, ``[channels + 1]``.

        The learning rate; where the optimizer divides by the root of a mean square of gradients, that is
        divided by it, too. Loss and penalty then balance as they do without the division: where |∂loss| is
        below strength · price. Unlike a penalty in the loss, none of it gets into that mean square.
        """
        groups = [(float(g["lr"]), g.get("eps", 0.0), p) for g in self.optimizer.param_groups for p in g["params"]]
        now = tuple(lr for lr, _, _ in groups)
        if now != self._last_rates:
            rate_of = {id(p): torch.tensor([lr]) for lr, _, p in groups}
            self._last_rates, self._plain_rates = now, self._magnitudes.mean(rate_of)
        squares = {id(p): s for _, _, p in groups if (s := self._square(p)) is not None}
        if not squares or not squares.keys() >= self._magnitudes.ids:
            return self._plain_rates
        root = np.sqrt(self._magnitudes.mean(squares))
        return self._plain_rates / np.maximum(root + max(eps for _, eps, _ in groups), 1e-30)

    def _square(self, parameter: Tensor) -> Tensor | None:
        """The optimizer's running mean square of the parameter's gradient, if it has one."""
        state = self.optimizer.state.get(parameter, {})
        found = next((state[k] for k in SQUARES if k in state), None)
        return found if isinstance(found, Tensor) and found.shape == parameter.shape else None


def _zero(dead: Dead) -> None:
    for tensor, axis, positions in dead:
        tensor.index_fill_(axis, positions, 0)
