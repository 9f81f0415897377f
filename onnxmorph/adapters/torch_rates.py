"""How far a step of the optimizer moves each slice."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onnxmorph.adapters.torch_loop import of_first_rank
from onnxmorph.adapters.torch_slices import Tensors
from onnxmorph.errors import TrainingError

SQUARES = ("exp_avg_sq", "square_avg", "sum")  # its name in the state of the Adam family, RMSprop, Adagrad


class Rates:
    """Follows an optimizer's learning rates and second moments."""

    def __init__(self, optimizer: torch.optim.Optimizer, sources: Tensors) -> None:
        self.optimizer, self._sources = optimizer, sources

    def now(self) -> tuple[NDArray[np.float64], NDArray[np.float32] | None, float]:
        """Learning rates, mean squares of gradients where the optimizer has them, and its epsilon.

        As `Training.update` takes them; what was measured is the same on all ranks. Raises TrainingError where the
        optimizer lost a parameter.
        """
        group_of = {id(p): g for g in self.optimizer.param_groups for p in g["params"]}
        if not all(id(t) in group_of for t in self._sources.each):
            raise TrainingError(
                "the optimizer does not hold all the parameters that it held when Morph was built; give them back, "
                "or build Morph again and load_state_dict to go on",
                code="module-changed",
            )
        rates = np.repeat([float(group_of[id(t)]["lr"]) for t in self._sources.each], self._sources.sizes)
        squares = [self._square(t) for t in self._sources.each]
        known = [s for s in squares if s is not None]
        if not known or len(known) < len(squares):
            return rates, None, 0.0
        found = of_first_rank(self._sources.means(known)).cpu().numpy()
        return rates, found, max(g.get("eps", 0.0) for g in self.optimizer.param_groups)

    def _square(self, parameter: Tensor) -> Tensor | None:
        """The optimizer's running mean square of the parameter's gradient, if it has one."""
        state = self.optimizer.state.get(parameter, {})
        found = next((state[k] for k in SQUARES if k in state), None)
        return found if isinstance(found, Tensor) and found.shape == parameter.shape else None
