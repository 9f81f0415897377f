"""The penalty in a PyTorch training loop: build a `Morph`, call ``step()`` after ``optimizer.step()``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onnxmorph.adapters.standing import OFTEN, Standing, analysed, begin
from onnxmorph.adapters.torch_gates import Gates, Gating
from onnxmorph.adapters.torch_gradients import gradients
from onnxmorph.adapters.torch_growth import grow
from onnxmorph.adapters.torch_loop import Steps, check_unchanged, of_first_rank, optimizer_inside, said_by_first_rank
from onnxmorph.adapters.torch_optimizer import resize_optimizer
from onnxmorph.adapters.torch_probe import Probe, followed, told
from onnxmorph.adapters.torch_rates import SQUARES, Rates
from onnxmorph.adapters.torch_resize import Hook, kept_indices, load_weights, resize, resize_state, tensors, unwrapped
from onnxmorph.adapters.torch_sharded import check_whole, reshard
from onnxmorph.adapters.torch_slices import Places, Tensors, places, zero
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.converters.torch import export
from onnxmorph.magnitudes import Dead
from onnxmorph.structure import Structure

__all__ = [
    "Gating", "Morph", "gradients", "grow", "kept_indices", "load_weights", "resize", "resize_optimizer",
    "resize_state",
]  # fmt: skip


class Morph(Standing):
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
        analysis: of the exported module, whose weights are not kept: `export` has those of now.
            The others are those of `Standing`.

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
        combine: str | Mapping[str, str] | None = None,
        gating: Gating | None = None,
        on_resize: Hook | None = None,
        bounds: Bounds | None = None,
        device: str | os.PathLike[str] | None = None,
        whole: nn.Module | None = None,
        by: str = "auto",
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
            magnitudes: ``auto``, ``norm``, ``lasso`` or ``gate``, or group id to one of them. auto takes the scales of
                norms wherever zero scales, shifts and biases silence the channel, which is tried out.
            combine: how several scales or slices of one channel combine, or how those of ``norm`` and of ``lasso`` do:
                ``rms``, ``l2``, ``sum``, ``max``, ``or`` (`onnxmorph.magnitudes.combine`). ``rms`` where not given, and
                ``max`` of scales for ``loss``.
            gating: how gates behave; their logits become a group of the optimizer's parameters, and multiply the
                module's weights until the structure is frozen.
            on_resize: see `resize`; groups that it takes care of are not locked.
            bounds: what has to stay, and least widths. Multiples are for `expand`: in training widths are free.
            device: where `budget` limits latency: the name of a device, or its file.
            whole: where FSDP2 shards the module: an unsharded one built alike, whatever its weights. It is exported and
                tried out in place of the module, so that `example_inputs` are on its device; then it may go.
            by: what says which channels go: ``taylor``, how much the loss changes without them, measured on the
                gradients that the optimizer gets; ``magnitude``; or ``auto``: taylor, but not for ``loss`` or gates.

        Raises:
            BoundsError: a boundary names nothing in the export, or asks for multiples.
            BudgetError: the budget is malformed or out of reach.
            ConversionError: the module cannot be exported.
            DeviceError: the device is not known, or its file cannot be used.
            TrainingError: gates that cannot be; or the module is sharded, and `whole` is not given or another network.
            StructureError: an unknown method, magnitude or combination.
        """
        inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        module, optimizer = unwrapped(module), optimizer_inside(optimizer)
        self.module, self.optimizer, self.budget = module, optimizer, Budget.parse(budget)
        reshard(module)
        by_name, held = tensors(module), {id(p) for g in optimizer.param_groups for p in g["params"]}
        check_whole(by_name, None if whole is None else tensors(whole))
        whole = module if whole is None else whole
        analysis = analysed(export(whole, inputs), bounds, device)
        self._tensors = {n: by_name[n] for n in analysis.parameters if n in by_name}
        locked, attributes = said_by_first_rank(followed(Probe.of(whole, inputs, analysis, on_resize)))
        self._followed = told(analysis, locked, attributes)
        training = begin(
            analysis,
            [x.detach().cpu().numpy() for x in inputs],
            self._tensors.keys(),
            [n for n, t in self._tensors.items() if id(t) in held and t.requires_grad],
            self.budget,
            steps=steps,
            method=method,
            magnitudes=magnitudes,
            combine=combine,
            by=by,
            locked=locked,
            agreed=said_by_first_rank,
        )
        super().__init__(training, method)
        analysis.graph.forget_weights()  # a copy of the first ones, as large as the module
        found = training.map
        self._gates = Gates(module, found, optimizer, gating or Gating())
        self._sources, self._rest = (
            Tensors.of(slices, self._tensors, self._gates.logits) for slices in (found.sources.slices, found.rest)
        )
        self._heard: Tensors | None = None
        self._sums: Tensor | None = None
        if training.saliency is not None:
            self._heard = Tensors.of(training.saliency.slices, self._tensors, {})
            optimizer.register_step_pre_hook(self._listen)
        self._dead: Places = []
        self._dead_weights: Places = []
        self._steps = Steps(optimizer)
        self._rates = Rates(optimizer, self._sources)
        with torch.no_grad():
            self._training.start(self._norms(), self._rates.now()[0])

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
        if self._training.step():
            changes = self._training.update(self._norms(), *self._rates.now(), self._said())
            for slices, factors in ((self._sources, changes.sources), (self._rest, changes.rest)):
                if factors is not None:
                    slices.multiply(factors)
            self._bury(changes.buried)
            if self.done:
                self._gates.settle()
        zero(self._dead)
        self._calls += 1
        if self._calls % OFTEN == 0:
            zero(self._dead_weights)

    def _bury(self, died: Dead) -> None:
        """Make what died zero for good, in the parameters and in what the optimizer remembers of them."""
        if not died:
            return
        for tensor, axis, positions in places(died, self._tensors):
            state = self.optimizer.state.get(tensor, {})
            same = (v for k, v in state.items() if isinstance(v, Tensor) and not k.endswith(SQUARES))
            zero([(v, axis, positions) for v in (tensor, *same) if v.shape == tensor.shape])
        self._dead = places(self._training.dead, self._tensors)
        self._dead_weights = places(self._training.dead_weights, self._tensors)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def _listen(self, *_: Any) -> None:
        """Before the optimizer's step: the gradients are complete and clipped, and not yet set to zero."""
        if self._heard is not None and self._training.attentive:
            scale = getattr(self.optimizer, "grad_scale", None)  # a fused optimizer takes it out by itself
            self._sums = self._heard.sensitivities() / (1 if scale is None else scale)

    def _said(self) -> NDArray[np.float32] | None:
        """What was measured since the last update, the same on all ranks."""
        sums, self._sums = self._sums, None
        return None if sums is None else of_first_rank(sums).cpu().numpy()

    def _norms(self) -> NDArray[np.float32]:
        """Of the slices that make up magnitudes, the same on all ranks."""
        return of_first_rank(self._sources.norms().detach()).cpu().numpy()

    def _check(self) -> None:
        reshard(self.module)
        mapped = {n: t for n, t in self._tensors.items() if n in self._training.map.sliced}
        parameters = {n: t for n, t in mapped.items() if isinstance(t, nn.Parameter)}
        check_unchanged(self.module, self.optimizer, parameters, self._training.map.trained)

    def loss_term(self) -> Tensor:
        """``strength · Σ price · |magnitude|`` with gradient, a scalar: the published penalty, to add to the loss.

        Several scales of one channel combine by their maximum where the method is ``loss``. Waits for the device.
        """
        norms = self._sources.norms()
        slopes, value = self._training.slopes(norms.detach().cpu().numpy())
        term = torch.from_numpy(slopes).to(norms) @ norms
        return term + (value - term.detach())

    @torch.no_grad()
    def finish(self) -> None:
        """Meet the budget now, by removing what is worth least for its price, and freeze."""
        self._check()
        self._bury(self._training.finish(self._norms(), self._rates.now()[0]))
        self._gates.settle()

    # -- how it stands ---------------------------------------------------------------------------

    def structure(self) -> Structure:
        """The live channels, and what the module follows."""
        structure = super().structure()
        return replace(structure, provenance={**structure.provenance, **self._followed})

    def state_dict(self) -> dict[str, Any]:
        """Numbers and lists for a checkpoint, beside those of the module and the optimizer."""
        logits = {name: each.tolist() for name, each in self._gates.logits.items()}
        return {**super().state_dict(), "gates": logits}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises StructureError where it is of another model."""
        reshard(self.module)
        self._bury(self.restored(state))
        for name, each in self._gates.logits.items():
            each.copy_(torch.tensor(state["gates"][name]))
        if self.done:
            self._gates.settle()
