"""The penalty as a callback of Keras's ``fit``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from onnxmorph.adapters.keras import Morph
from onnxmorph.budget import Budget
from onnxmorph.errors import TrainingError


class MorphCallback(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no annotations
    """Trains a model towards a budget in ``fit``.

    >>> callback = MorphCallback("flops=50%", images[:2])        # doctest: +SKIP
    >>> model.fit(images, labels, callbacks=[callback], epochs=10)  # doctest: +SKIP
    >>> callback.morph.structure()                                # doctest: +SKIP

    `morph` is there from the start of training on. Strength and costs are in the history, as ``morph/NAME``.
    """

    def __init__(
        self,
        budget: str | Budget,
        example_inputs: Any,
        *,
        steps: int | None = None,
        options: Mapping[str, Any] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Say what to reach.

        Args:
            budget: as for `Morph`.
            example_inputs: as for `Morph`.
            steps: planned steps; all that ``fit`` is going to take where not given.
            options: further arguments of `Morph`.
            state: ``morph.state_dict()`` of a training that is to go on.
        """
        super().__init__()
        self.budget, self.example_inputs, self.steps = budget, example_inputs, steps
        self.options, self.state = dict(options or {}), state
        self.morph: Morph | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Build the `Morph`."""
        steps = self.steps or (self.params["epochs"] * self.params["steps"] if self.params.get("steps") else 0)
        if not steps:
            raise TrainingError("fit does not say how many steps it will take; give steps", code="training-steps")
        model = self.model
        self.morph = Morph(model, self.example_inputs, model.optimizer, self.budget, steps=steps, **self.options)
        if self.state is not None:
            self.morph.load_state_dict(self.state)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """After the optimizer's step."""
        assert self.morph is not None and self.model is not None  # reading it brings variables up to date on JAX
        self.morph.step()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Into the history, with the loss."""
        assert self.morph is not None
        if logs is not None:
            costs = {f"morph/{name}": float(self.morph.cost[name]) for name in self.morph.limits}
            logs.update({"morph/strength": self.morph.strength, **costs})

    def on_train_end(self, logs: Any = None) -> None:
        """Where all planned steps were taken, and the budget is not met, meet it."""
        assert self.morph is not None and self.model is not None
        if self.morph.over and not self.morph.done:
            self.morph.finish()
