"""The penalty in a JAX training loop: build a `Morph`, pass parameters through ``step()`` after every update."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax import numpy as jnp
from numpy.typing import NDArray

from onnxmorph.adapters.jax_leaves import Leaves, load_weights, resize
from onnxmorph.adapters.standing import OFTEN, Standing, analysed, begin, mask, ungated
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.converters.jax import Function, Parameters, export, names
from onnxmorph.errors import TrainingError
from onnxmorph.magnitudes import Dead

__all__ = ["Morph", "load_weights", "resize"]

SQUARES = ("nu", "sum_of_squares")  # running squares of gradients in optax: Adam and RMSprop, Adagrad
EPS = 1e-8  # what optax adds to their root; it does not tell, and all its optimizers have this default


class Morph(Standing):
    """Trains the parameters of a function towards a budget, in the user's own loop.

    >>> morph = Morph(model.apply, variables, x, "flops=50%", steps=1000)     # doctest: +SKIP
    >>> for x, y in batches:                                                   # doctest: +SKIP
    ...     variables, opt_state = update(variables, opt_state, x, y)
    ...     variables, opt_state = morph.step(variables, opt_state)

    As `onnxmorph.adapters.torch.Morph`, but for this: ``step()`` takes the parameters and gives them back. Call it
    once for every update that was applied. All groups are free: what the function cannot be cut to shows when its
    resized parameters are used, and `bounds` keep it.

    Source: MorphNet (arXiv 1711.06798), with a proximal step.
    """

    def __init__(
        self,
        function: Function,
        params: Parameters,
        example_inputs: Any,
        budget: str | Budget,
        *,
        steps: int,
        learning_rate: float | Callable[[int], Any] = 1.0,
        part: str | None = None,
        method: str = "proximal",
        magnitudes: str | Mapping[str, str] = "auto",
        combine: str | Mapping[str, str] | None = None,
        bounds: Bounds | None = None,
        device: str | os.PathLike[str] | None = None,
        by: str = "magnitude",
    ) -> None:
        """Export and analyse ``function(params, *example_inputs)``.

        Args:
            function: for inference, e.g. the ``apply`` of a linen module.
            params: a pytree: all that the function reads, running statistics too.
            example_inputs: an array, or those that follow ``params``.
            budget: e.g. ``"flops=50%"``; shares are of the whole network.
            steps: planned calls of `step`; by then the budget is met.
            learning_rate: or a schedule of optax. It is the unit of `strength`, and changes nothing else, but for
                ``loss``, whose strength it is.
            part: the entry of ``params`` that the optimizer holds; ``params`` where there is one of that name, else all
                but the running statistics.
            method: ``proximal``, or ``loss`` where `loss_term` is added to the loss (the published form).
            magnitudes: as for `onnxmorph.adapters.torch.Morph`, and so the rest.
            combine: how several scales or slices of one channel combine.
            bounds: what has to stay, and least widths.
            device: where `budget` limits latency: the name of a device, or its file.
            by: what says which channels go: ``magnitude``, or ``taylor`` where `step` is given gradients.

        Raises:
            BoundsError: a boundary names nothing in the export, or asks for multiples.
            BudgetError: the budget is malformed or out of reach.
            ConversionError: the function cannot be exported.
            DeviceError: the device is not known, or its file cannot be used.
            StructureError: an unknown method, magnitude or combination.
        """
        model = export(function, params, example_inputs)
        inputs = example_inputs if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
        self._names = names(params)
        if part is None:
            part = "params" if isinstance(params, Mapping) and "params" in params else ""
        self._prefix = f"{part}/" if part else ""
        trained = [n for n in self._names if n.startswith(self._prefix)]
        arrays = [np.asarray(x) for x in inputs]
        options: dict[str, Any] = {
            "steps": steps,
            "method": method,
            "magnitudes": magnitudes,
            "combine": combine,
            "by": by,
        }
        analysis = analysed(model, bounds, device)
        super().__init__(ungated(begin(analysis, arrays, self._names, trained, budget, **options)), method)
        channels = self._training.map
        self._sources, self._rest = Leaves(channels.sources.slices, self._names), Leaves(channels.rest, self._names)
        self._pinned, self._silenced = Leaves(channels.pinned, self._names), Leaves(channels.silenced, self._names)
        saliency = self._training.saliency
        self._heard = None if saliency is None else Leaves(saliency.slices, self._names)
        self._rate = learning_rate
        self._training.start(self._norms(params), self._rates(None)[0])

    # -- in the loop -----------------------------------------------------------------------------

    def step(
        self, params: Parameters, opt_state: Any = None, gradients: Parameters | None = None
    ) -> tuple[Parameters, Any]:
        """After an update: the parameters with what lives shrunk by its price and what went zero, and the state.

        Of the state (of optax's optimizers) second moments are read, so that the penalty balances the loss as it does
        without them; and what it remembers of channels that went becomes zero. The gradients that the update was made
        from, a tree like what the optimizer holds, say which channels go where `by` is ``taylor``.

        Raises TrainingError where weights are no numbers any more, the tree is not what it was, or gradients are
        missing.
        """
        training, self._calls = self._training, self._calls + 1
        if training.step():
            sums = self._sums(params, gradients)
            changes = training.update(self._norms(params), *self._rates(opt_state), sums)
            for slices, factors in ((self._sources, changes.sources), (self._rest, changes.rest)):
                if factors is not None:
                    params = slices.multiply(params, factors)
            params, opt_state = self._bury(params, opt_state, changes.buried)
        if training.dead:
            params = self._pinned.multiply(params, mask(self._pinned.slices, training.dead))
        if training.dead_weights and self._calls % OFTEN == 0:
            params = self._silenced.multiply(params, mask(self._silenced.slices, training.dead_weights))
        return params, opt_state

    def finish(self, params: Parameters, opt_state: Any = None) -> tuple[Parameters, Any]:
        """Meet the budget now, by removing what is worth least for its price, and freeze."""
        return self._bury(params, opt_state, self._training.finish(self._norms(params), self._rates(None)[0]))

    def _bury(self, params: Parameters, opt_state: Any, died: Dead) -> tuple[Parameters, Any]:
        """Make what died zero in the parameters and in what the optimizer remembers of them, squares excepted."""
        if not died:
            return params, opt_state
        for each in (self._pinned, self._silenced):
            params = each.multiply(params, mask(each.slices, died))
        leaves, tree = jax.tree.flatten(opt_state)
        for k, field, name in self._remembered(opt_state):
            for dead, axis, positions in died:
                if dead == name and field not in SQUARES:
                    leaves[k] = jnp.moveaxis(jnp.moveaxis(leaves[k], axis, 0).at[positions].set(0), 0, axis)
        return params, jax.tree.unflatten(tree, leaves)

    def _sums(self, params: Parameters, gradients: Parameters | None) -> NDArray[np.float32] | None:
        if self._heard is None:
            return None
        found = {self._prefix + n: g for n, g in zip(names(gradients), jax.tree.leaves(gradients), strict=True)}
        if missing := sorted({name for name, _ in self._heard.slices.places} - set(found))[:3]:
            message = f"channels go by gradients, and there is none of {', '.join(missing)}"
            raise TrainingError(f"{message}; pass step() the gradients of the update", code="gradients-missing")
        return np.asarray(self._heard.sensitivities(params, found))

    def _norms(self, params: Parameters) -> NDArray[np.float32]:
        if names(params) != self._names:
            strange = sorted(set(names(params)) ^ set(self._names))[:3]
            message = f"the parameters are not those that Morph was built with ({', '.join(strange)})"
            raise TrainingError(f"{message}; pass the same tree, or build Morph again", code="module-changed")
        return np.asarray(self._sources.norms(params))

    def _rates(self, opt_state: Any) -> tuple[NDArray[np.float64], NDArray[np.float32] | None, float]:
        """Learning rates, and the running squares that the optimizer has of every source."""
        rate = self._rate(self._training.steps) if callable(self._rate) else self._rate
        slices, leaves = self._sources.slices, jax.tree.leaves(opt_state)
        rates = np.full(slices.positions, float(rate))
        squares = {name: leaves[k] for k, field, name in self._remembered(opt_state) if field in SQUARES}
        if not slices.places or not all(name in squares for name, _ in slices.places):
            return rates, None, 0.0
        each = zip(slices.places, slices.sizes, strict=True)
        means = [jnp.moveaxis(squares[n], a, 0).reshape(size, -1).mean(1) for (n, a), size in each]
        return rates, np.concatenate([np.asarray(m, np.float32) for m in means]), EPS

    def _remembered(self, opt_state: Any) -> list[tuple[int, str, str]]:
        """Leaves of the optimizer's state that are made like a parameter: number, field (``mu``, ``nu``), parameter."""
        short = {name.removeprefix(self._prefix): name for name in self._training.map.trained}
        found = []
        for k, label in enumerate(names(opt_state)):
            parts = label.split("/")
            ends = (n for n in range(1, len(parts)) if "/".join(parts[n:]) in short)
            if (first := next(ends, None)) is not None:  # the longest: a/b/kernel is not b/kernel
                found.append((k, parts[first - 1], short["/".join(parts[first:])]))
        return found

    def slopes(self, params: Parameters) -> Array:
        """What `loss_term` needs: the penalty's gradient with respect to every slice's norm, held constant."""
        return jnp.asarray(self._training.slopes(self._norms(params))[0], jnp.float32)

    def loss_term(self, params: Parameters, slopes: Array) -> Array:
        """A scalar with the gradient of ``strength · Σ price · |magnitude|``: the published penalty, for the loss.

        For use under ``jax.grad`` and ``jax.jit``; `slopes` are made outside, before every step.
        """
        return slopes @ self._sources.norms(params)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken. Raises StructureError where it is of another network."""
        self.restored(state)
