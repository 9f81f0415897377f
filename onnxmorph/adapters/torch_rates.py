"""How far a step of the optimizer moves each channel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from onnxmorph.adapters.torch_slices import Magnitudes
from onnxmorph.axes import Floats
from onnxmorph.errors import TrainingError

SQUARES = ("exp_avg_sq", "square_avg", "sum")  # its name in the state of the Adam family, RMSprop, Adagrad


class Rates:
    """Follows an optimizer's learning rates and second moments."""

    def __init__(self, optimizer: torch.optim.Optimizer, magnitudes: Magnitudes) -> None:
        self.optimizer, self._magnitudes = optimizer, magnitudes
        self._last: tuple[float, ...] = ()

    def now(self) -> Floats:
        """How far a unit of penalty gradient moves each channel in a step, ``[channels + 1]``.

        The learning rate; where the optimizer divides by the root of a mean square of gradients, that is
        divided by it, too. Loss and penalty then balance as they do without the division: where |∂loss| is
        below strength · price. Unlike a penalty in the loss, none of it gets into that mean square.

        Raises TrainingError where the optimizer lost a parameter.
        """
        groups = [(float(g["lr"]), g.get("eps", 0.0), p) for g in self.optimizer.param_groups for p in g["params"]]
        now = tuple(lr for lr, _, _ in groups)
        if now != self._last:
            rate_of = {id(p): torch.tensor([lr]) for lr, _, p in groups}
            if not rate_of.keys() >= self._magnitudes.ids:
                raise TrainingError(
                    "the optimizer does not hold all the parameters that it held when Morph was built; give them back, "
                    "or build Morph again and load_state_dict to go on",
                    code="module-changed",
                )
            self._last, self._plain = now, self._magnitudes.mean(rate_of)
        squares = {id(p): s for _, _, p in groups if (s := self._square(p)) is not None}
        if not squares or not squares.keys() >= self._magnitudes.ids:
            return self._plain
        root = np.sqrt(self._magnitudes.mean(squares, measured=True))
        return self._plain / np.maximum(root + max(eps for _, eps, _ in groups), 1e-30)

    def _square(self, parameter: Tensor) -> Tensor | None:
        """The optimizer's running mean square of the parameter's gradient, if it has one."""
        state = self.optimizer.state.get(parameter, {})
        found = next((state[k] for k in SQUARES if k in state), None)
        return found if isinstance(found, Tensor) and found.shape == parameter.shape else None
