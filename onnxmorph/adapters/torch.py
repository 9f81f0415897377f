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
from onnxmorph.adapters.torch_growth import grow
from onnxmorph.adapters.torch_loop import Steps, check_finite, check_unchanged, optimizer_inside
from onnxmorph.adapters.torch_map import Map
from onnxmorph.adapters.torch_optimizer import resize_optimizer
from onnxmorph.adapters.torch_rates import SQUARES, Rates
from onnxmorph.adapters.torch_resize import Hook, kept_indices, load_weights, resize, resize_state, unwrapped
from onnxmorph.analysis import analyze
from onnxmorph.axes import Floats
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.converters.torch import export
from onnxmorph.errors import BoundsError, BudgetError, StructureError
from onnxmorph.penalty import Controller, Schedule
from onnxmorph.structure import Structure

__all__ = [
    "Morph", "gradients", "grow", "kept_indices", "load_weights", "resize", "resize_optimizer", "resize_state",
]  # fmt: skip

OFTEN = 10  # steps
METHODS = {"proximal": "rms", "loss": "max"}  # and how several scales of one channel combine there

Dead = list[tuple[Tensor, int, Tensor]]  # tensor, axis, positions


class Morph:
    """Trains a module towards a budget, in the user's own loop.

    >>> morph = Morph(module, inputs, optimizer, "flops=50%", steps=1000)  # doctest: +SKIP
    >>> for x, y in batches:                                               # doctest: +SKIP
    ...     loss(module(x), y).backward(); optimizer.step(); optimizer.zero_grad()
    ...     morph.step()

    Every channel is charged what it costs; the strength is steered so that the budget is met at the planned
    step. A channel that went is exactly zero in all its parameter slices, and stays so: the masked module is
    the shrunk network. Call ``step()`` after ``optimizer.step()``; where the optimizer took no step since the last
    call (a gradient scaler skipped it, batches are accumulated) it does nothing.

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
            module: what is trained; or ``torch.compile``'s or DistributedDataParallel's wrapper of it.
            example_inputs: ``forward``'s positional tensors.
            optimizer: holds the module's parameters, itself or a trainer's wrapper of it; its learning rates scale the
                proximal step.
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
        module, optimizer = unwrapped(module), optimizer_inside(optimizer)
        self.module, self.optimizer, self.method = module, optimizer, method
        self.budget = Budget.parse(budget)
        self.analysis = analyze(export(module, inputs), bounds=bounds)
        if device is not None:
            self.analysis = self.analysis.with_costs(**latency.costs(self.analysis, latency.load(device)))
        self._map = Map.of(module, inputs, optimizer, self.analysis, magnitudes, METHODS[method], on_resize)
        self.locked, self.magnitudes = self._map.locked, self._map.kinds
        self._dead: Dead = []
        self._dead_weights: Dead = []
        self._buried = np.zeros(self.analysis.channels + 1, bool)
        self._calls, self._steps = 0, Steps(optimizer)
        self._rates = Rates(optimizer, self._map.magnitudes)
        self._controller = self._build(steps)
        with torch.no_grad():
            self._controller.aim(self._measure(), self._rates.now())

    def _build(self, steps: int) -> Controller:
        free, shrinks = self._map.norm | self._map.lasso, self.method == "proximal"
        schedule = Schedule.of(steps)
        try:
            return Controller(self.analysis, self.budget, schedule, free, self._map.norm, shrinks=shrinks)
        except BudgetError as error:
            if not self.locked:
                raise
            group, reason = next(iter(self.locked.items()))
            message = f"{error}; locked is {group!r} ({reason})"
            more = f" and {len(self.locked) - 1} more groups" if len(self.locked) > 1 else ""
            raise BudgetError(message + more, code="budget-reach") from None

    # -- in the loop -----------------------------------------------------------------------------

    @torch.no_grad()
    def step(self) -> None:
        """After ``optimizer.step()``: shrink what lives by its price, silence what went.

        Raises TrainingError where weights are no numbers any more, or module or optimizer are not what they were.
        """
        if not self._steps.moved():
            return
        if self._calls % OFTEN == 0:
            self._check()
        control = self._controller
        if not control.done:
            factors, rest = control.update(self._measure(), self._rates.now())
            if control.shrinks or not control.alive.all():
                for each in (self._map.magnitudes.scales, self._map.magnitudes.weights):
                    if each.tensors:
                        each.multiply(factors)
            if self._map.rest.tensors and not control.alive.all():
                self._map.rest.multiply(rest)
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
        for slices in (*self._map.pinned, self._map.silenced):
            for tensor, axis, positions in slices.dead(~new):
                state = self.optimizer.state.get(tensor, {})
                same = (v for k, v in state.items() if isinstance(v, Tensor) and not k.endswith(SQUARES))
                _zero([(v, axis, positions) for v in (tensor, *same) if v.shape == tensor.shape])
        self._dead = [place for slices in self._map.pinned for place in slices.dead(~dead)]
        self._dead_weights = self._map.silenced.dead(~dead)

    def _measure(self) -> Floats:
        """The magnitude of every channel, ``[channels + 1]``, which has to be a number."""
        found = self._map.magnitudes.measure()
        check_finite(self.analysis, found, self._controller.step + 1)
        return found

    def _check(self) -> None:
        check_unchanged(self.module, self.optimizer, self._map.sliced, self._map.trained)

    def loss_term(self) -> Tensor:
        """``strength · Σ price · |magnitude|`` with gradient, a scalar: the published penalty, to add to the loss.

        Several scales of one channel combine by their maximum where the method is ``loss``.
        """
        found = self._map.magnitudes.differentiable()
        price = torch.from_numpy(self._controller.price * self._controller.alive).to(found)
        return self._controller.strength * (price @ found)

    @torch.no_grad()
    def finish(self) -> None:
        """Meet the budget now, by removing what is worth least for its price, and freeze."""
        self._check()
        self._controller.finish(self._measure(), self._rates.now())
        self._bury()

    # -- how it stands ---------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the budget is met and all that went is silent; from then on the structure is frozen."""
        return self._controller.done

    @property
    def over(self) -> bool:
        """Whether all planned steps were taken."""
        return self._controller.step >= self._controller.schedule.steps

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

    def scalars(self) -> dict[str, float]:
        """What to log: step, strength, ``cost/NAME`` and ``width/GROUP``, each a number."""
        return {
            "step": self._controller.step,
            "strength": self.strength,
            **{f"cost/{name}": float(value) for name, value in self.cost.items()},
            **{f"width/{group}": width for group, width in self.widths.items()},
        }

    def structure(self) -> Structure:
        """The live channels."""
        return Structure.of(
            self.analysis,
            self._controller.alive.astype(np.int64),
            method=f"morph by {self.method}",
            budget=str(self.budget),
            steps=self._controller.step,
            **{name: found for name, found in self._map.followed.items() if found},
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


def _zero(dead: Dead) -> None:
    for tensor, axis, positions in dead:
        tensor.index_fill_(axis, positions, 0)
