"""The penalty as a callback of the Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from onnxmorph.adapters.torch import Morph
from onnxmorph.adapters.torch_trainer import meet, optimizer_of, part_of
from onnxmorph.budget import Budget

STATE = "onnxmorph"  # in the trainer's state file


class MorphCallback(TrainerCallback):
    """Trains a model, or a part of it, towards a budget.

    >>> callback = MorphCallback("flops=50%", example_inputs)        # doctest: +SKIP
    >>> Trainer(model, arguments, ..., callbacks=[callback]).train()  # doctest: +SKIP
    >>> callback.morph.structure()                                   # doctest: +SKIP

    `morph` is there from the start of training on. Widths, costs and strength are in the trainer's ``log_history``
    beside the loss, as ``morph/NAME``; its checkpoints hold the state.
    """

    def __init__(
        self,
        budget: str | Budget,
        example_inputs: Tensor | Sequence[Tensor],
        *,
        part: str = "",
        steps: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what to reach.

        Args:
            budget: as for `Morph`.
            example_inputs: ``forward``'s positional tensors.
            part: the attribute of the model that holds the network; all of it where not given.
            steps: planned steps of the optimizer; all that the trainer is going to take where not given.
            options: further arguments of `Morph`.

        At the start of training TrainingError is raised where the model or its optimizer is not as said.
        """
        self.budget, self.part, self.steps, self.options = budget, part, steps, dict(options or {})
        self.example_inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
        self.morph: Morph | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Build the `Morph`: the optimizer is there, and what a checkpoint held is loaded."""
        network = part_of(given["model"], self.part)
        inputs = tuple(x.to(args.device) for x in self.example_inputs)
        steps = self.steps or state.max_steps
        optimizer = optimizer_of(network, [given["optimizer"]])
        self.morph = Morph(network, inputs, optimizer, self.budget, steps=steps, **self.options)
        states: Any = state.stateful_callbacks  # declared as a list, and a dict from then on
        if STATE in states:
            self.morph.load_state_dict(states[STATE])

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """After the optimizer's step."""
        assert self.morph is not None
        self.morph.step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """The trainer writes its state soon after it decided to save."""
        if control.should_save:
            self._keep(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """As after a step."""
        if control.should_save:
            self._keep(state)

    def _keep(self, state: TrainerState) -> None:
        assert self.morph is not None
        states: Any = state.stateful_callbacks
        states[STATE] = self.morph.state_dict()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **given: Any,
    ) -> None:
        """Beside the loss, in the history; loggers were called already."""
        if logs is not None and self.morph is not None and "loss" in logs:
            state.log_history[-1].update({f"morph/{name}": value for name, value in self.morph.scalars().items()})

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any) -> None:
        """Where all planned steps were taken, and the budget is not met, meet it."""
        meet(self.morph)
