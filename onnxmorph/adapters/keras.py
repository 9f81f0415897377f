"""The penalty in Keras 3, on backends torch and jax: build a `Morph`, call ``step()`` after the optimizer's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from onnxmorph.adapters.keras_resize import cut, resize
from onnxmorph.adapters.keras_variables import SQUARES, Masks, along, label, mask, multiply, remembered, total, values
from onnxmorph.adapters.standing import OFTEN, Standing, analysed, begin, ungated
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.converters.keras import export
from onnxmorph.magnitudes import Dead, Place, Slices

__all__ = ["Morph", "cut", "resize"]


class Morph(Standing):
    """Trains a model towards a budget, in the user's own loop; in ``fit``, `MorphCallback` of keras_fit does so.

    >>> morph = Morph(model, x, optimizer, "flops=50%", steps=1000)  # doctest: +SKIP
    >>> for x, y in batches:                                         # doctest: +SKIP
    ...     update(model, optimizer, x, y)
    ...     morph.step()

    As `onnxmorph.adapters.torch.Morph`, but for this: the penalty is proximal; and all groups are free, since what
    `resize` does not follow the ONNX graph does. It reads and writes the model's variables: loops on JAX that keep
    their values apart pass them through `onnxmorph.adapters.jax.Morph` instead.

    Source: MorphNet (arXiv 1711.06798), with a proximal step.
    """

    def __init__(
        self,
        model: keras.Model,
        example_inputs: Any,
        optimizer: keras.optimizers.Optimizer,
        budget: str | Budget,
        *,
        steps: int,
        magnitudes: str | Mapping[str, str] = "auto",
        combine: str | Mapping[str, str] | None = None,
        bounds: Bounds | None = None,
        device: str | os.PathLike[str] | None = None,
    ) -> None:
        """Export and analyse; the model stays as it is.

        Args:
            model: what is trained, built.
            example_inputs: what it is called with: an array, or arrays in a list or dict.
            optimizer: trains the model's trainable variables.
            budget: e.g. ``"flops=50%"``; shares are of the whole model.
            steps: planned calls of `step`; by then the budget is met.
            magnitudes: as for `onnxmorph.adapters.torch.Morph`, and so the rest.
            combine: how several scales or slices of one channel combine.
            bounds: what has to stay, and least widths.
            device: where `budget` limits latency: the name of a device, or its file.

        Raises:
            BoundsError: a boundary names nothing in the export, or asks for multiples.
            BudgetError: the budget is malformed or out of reach.
            ConversionError: the model cannot be exported.
            DeviceError: the device is not known, or its file cannot be used.
            StructureError: an unknown magnitude or combination.
        """
        self.model, self.optimizer = model, optimizer
        self._variables = {v.path: v for v in model.variables}
        trained = [v.path for v in model.trainable_variables]
        inputs = [np.asarray(x) for x in keras.tree.flatten(example_inputs)]
        options: dict[str, Any] = {"steps": steps, "method": "proximal", "magnitudes": magnitudes, "combine": combine}
        analysis = analysed(export(model, example_inputs), bounds, device)
        training = begin(analysis, inputs, list(self._variables), trained, budget, **options)
        super().__init__(ungated(training), "proximal")
        self._dead: Masks = []
        self._dead_weights: Masks = []
        self._training.start(self._norms(), self._rates()[0])

    # -- in the loop -----------------------------------------------------------------------------

    def step(self) -> None:
        """After a step of the optimizer: shrink what lives by its price, silence what went.

        Raises TrainingError where weights are no numbers any more.
        """
        training, self._calls = self._training, self._calls + 1
        if training.step():
            changes = training.update(self._norms(), *self._rates())
            for slices, factors in ((training.map.sources.slices, changes.sources), (training.map.rest, changes.rest)):
                if factors is not None:
                    multiply(self._masks(zip(slices.places, slices.split(factors), strict=True)))
            self._bury(changes.buried)
        multiply(self._dead)
        if self._calls % OFTEN == 0:
            multiply(self._dead_weights)

    def finish(self) -> None:
        """Meet the budget now, by removing what is worth least for its price, and freeze."""
        self._bury(self._training.finish(self._norms(), self._rates()[0]))

    def _bury(self, died: Dead) -> None:
        """Make what died zero in the variables and in what the optimizer remembers of them, squares excepted."""
        if not died:
            return
        multiply(self._zeros(died))
        memory = [(name, v) for name, v in remembered(self.optimizer).items() if not name.endswith(SQUARES)]
        for name, axis, positions in died:
            shape = self._variables[name].shape
            mine = [v for slot, v in memory if slot.startswith(label(name)) and v.shape == shape]
            multiply([(v, mask(shape, axis, positions)) for v in mine])
        self._dead, self._dead_weights = self._zeros(self._training.dead), self._zeros(self._training.dead_weights)

    def _masks(self, factors: Iterable[tuple[Place, NDArray[Any]]]) -> Masks:
        return [(self._variables[n], along(each, self._variables[n].shape, a)) for (n, a), each in factors]

    def _zeros(self, dead: Dead) -> Masks:
        return [(v := self._variables[name], mask(v.shape, axis, at)) for name, axis, at in dead]

    def _slices(self) -> Slices:
        return self._training.map.sources.slices

    def _norms(self) -> NDArray[np.float32]:
        """√Σ squares of every slice, ``[positions]``."""
        parts = [total(ops.square(values(self._variables[n])), a) for n, a in self._slices().places]
        joined = ops.sqrt(ops.concatenate(parts)) if parts else ops.zeros(0)
        return np.asarray(ops.convert_to_numpy(joined), np.float32)

    def _rates(self) -> tuple[NDArray[np.float64], NDArray[np.float32] | None, float]:
        """Learning rates, the running squares that the optimizer has of every source, and its epsilon."""
        slices, rate = self._slices(), float(ops.convert_to_numpy(self.optimizer.learning_rate))
        rates = np.full(slices.positions, rate)
        memory = remembered(self.optimizer)
        kept = ([memory[k] for s in SQUARES if (k := label(n, s)) in memory] for n, _ in slices.places)
        found = [next(iter(each), None) for each in kept]
        squares = [v for v in found if v is not None]
        if not squares or len(squares) < len(found):
            return rates, None, 0.0
        each = zip(squares, slices.places, slices.sizes, strict=True)
        parts = [total(values(v), axis) * (size / float(np.prod(v.shape))) for v, (_, axis), size in each]
        means = np.asarray(ops.convert_to_numpy(ops.concatenate(parts)), np.float32)
        return rates, means, float(getattr(self.optimizer, "epsilon", 0.0))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises StructureError where it is of another model."""
        self._bury(self.restored(state))
