"""The penalty as a callback of Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from onnxmorph.adapters.torch import Morph
from onnxmorph.adapters.torch_trainer import meet, optimizer_of, part_of
from onnxmorph.budget import Budget
from onnxmorph.errors import TrainingError


class MorphCallback(Callback):
    """Trains a part of a LightningModule towards a budget.

    >>> callback = MorphCallback("flops=50%", part="network")  # doctest: +SKIP
    >>> Trainer(callbacks=[callback]).fit(module, loader)      # doctest: +SKIP
    >>> callback.morph.structure()                             # doctest: +SKIP

    `morph` is there from the start of training on. Widths, costs and strength go to the trainer's loggers, every
    ``log_every_n_steps``; Lightning's checkpoints hold the state.
    """

    def __init__(
        self,
        budget: str | Budget,
        *,
        part: str,
        steps: int | None = None,
        example_inputs: Tensor | Sequence[Tensor] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what to reach.

        Args:
            budget: as for `Morph`.
            part: the attribute of the LightningModule that holds the network.
            steps: planned steps of the optimizer; all that the trainer is going to take where not given.
            example_inputs: of the network; the LightningModule's ``example_input_array`` where not given.
            options: further arguments of `Morph`.

        At the start of training TrainingError is raised where one of these cannot be found out.
        """
        self.budget, self.part, self.steps = budget, part, steps
        self.example_inputs, self.options = example_inputs, dict(options or {})
        self.morph: Morph | None = None
        self._restored: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the `Morph`: the optimizer is there, and what a checkpoint held is loaded."""
        network = part_of(pl_module, self.part)
        planned = self.steps or trainer.estimated_stepping_batches
        if planned == float("inf"):
            message = "the trainer's steps are not limited; give steps, max_steps or max_epochs"
            raise TrainingError(message, code="training-steps")
        given: Any = pl_module.example_input_array if self.example_inputs is None else self.example_inputs
        if given is None:
            message = "give example_inputs, or set example_input_array in the LightningModule"
            raise TrainingError(message, code="training-inputs")
        inputs = tuple(x.to(pl_module.device) for x in ((given,) if isinstance(given, Tensor) else given))
        optimizer = optimizer_of(network, trainer.optimizers)
        self.morph = Morph(network, inputs, optimizer, self.budget, steps=int(planned), **self.options)
        if self._restored:
            self.morph.load_state_dict(self._restored)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the optimizer's step, or between two where batches are accumulated."""
        assert self.morph is not None
        self.morph.step()
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # a part of the trainer sets it
        if trainer.global_step % every == 0:
            for logger in trainer.loggers:
                logger.log_metrics(self.morph.scalars(), trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Where all planned steps were taken, and the budget is not met, meet it."""
        meet(self.morph)

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints."""
        return self.morph.state_dict() if self.morph is not None else self._restored

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Kept until training starts."""
        self._restored = state_dict
