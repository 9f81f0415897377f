"""Gates: a factor of 0 or 1 on every channel, whose probability of being open is learnt.

The logistic-sigmoid distribution with a straight-through gradient, as in Fine-Grained Stochastic Architecture Search
(arXiv 2006.09581), the method that followed MorphNet.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from onnxmorph.adapters.torch_resize import tensors
from onnxmorph.channel_map import ChannelMap
from onnxmorph.errors import TrainingError


@dataclass(frozen=True)
class Gating:
    """How gates behave.

    Attributes:
        temperature: of the sigmoid that gradients go through; near 0 they become steep and rare.
        straight_through: whether a gate is 0 or 1 and only its gradient is that of the sigmoid; otherwise it is the
            sigmoid itself.
        open: the probability that a gate is open at the start.
        rate: the learning rate of the logits; that of the optimizer's first group where not given.
    """

    temperature: float = 0.5
    straight_through: bool = True
    open: float = 0.95
    rate: float | None = None


class Gates:
    """The gates of a module. Until they `settle` they multiply its weights in every forward pass.

    In training they are drawn, in each pass anew; in evaluation those are open that are so more often than not.

    Attributes:
        logits: by the map's name (`gate_of`) the log odds of being open: parameters that the optimizer is given.
    """

    def __init__(self, module: nn.Module, map: ChannelMap, optimizer: torch.optim.Optimizer, how: Gating) -> None:
        """Hang them on the module and hand the logits to the optimizer.

        Raises TrainingError where several processes train, or a recurrent layer would have to be gated.
        """
        known = map.analysis.parameters
        own = {name: rows[:, 0] for (name, _), rows in map.sources.slices.parts.items() if name not in known}
        device = next((p.device for p in module.parameters()), None)
        start = torch.tensor(how.open).logit()
        self.logits = {n: nn.Parameter(start.expand(len(rows)).clone().to(device)) for n, rows in own.items()}
        self.module, self.how = module, how
        self._handles: list[RemovableHandle] = []
        self._gated: list[tuple[nn.Module, str, int, Tensor]] = []
        if not own:
            return
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            message = "gates are not kept alike on several processes; ask for norm or lasso magnitudes there"
            raise TrainingError(message, code="gates-parallel")
        gate = torch.zeros(map.analysis.channels + 1, dtype=torch.int64)  # of every channel, 0 for none
        for rows in own.values():
            gate[torch.from_numpy(rows)] = torch.arange(len(rows)) + gate.max() + 1
        by_name = tensors(module)
        for (name, axis), rows in map.gated.parts.items():
            for owner, key in _owners(module, by_name[name]):
                if isinstance(owner, nn.RNNBase):
                    message = (
                        f"{name} of {type(owner).__name__} cannot be gated; ask for lasso magnitudes in its groups"
                    )
                    raise TrainingError(message, code="gates-recurrent")
                self._gated.append((owner, key, axis, gate[torch.from_numpy(rows)].to(device)))
        rate = optimizer.param_groups[0]["lr"] if how.rate is None else how.rate
        optimizer.add_param_group({"params": [*self.logits.values()], "lr": rate, "weight_decay": 0.0})
        self._handles = [
            module.register_forward_pre_hook(lambda *_: self._multiply()),
            module.register_forward_hook(lambda *_: self._restore(), always_call=True),
        ]

    def values(self) -> Tensor:
        """Of every gate, behind a 1 for what has none; with gradient."""
        logits = torch.cat([*self.logits.values()])
        if self.module.training:
            logits = logits + torch.rand_like(logits).clamp(1e-6, 1 - 1e-6).logit()
        soft = (logits / self.how.temperature).sigmoid()
        if self.how.straight_through:
            soft = (soft > 0.5).to(soft) + (soft - soft.detach())
        return torch.cat([soft.new_ones(1), soft])

    def _multiply(self) -> None:
        values = self.values()
        for owner, key, axis, rows in self._gated:
            weight = getattr(owner, key)  # along another axis it may be gated already
            factor = values[rows].prod(1).to(weight.dtype)
            # An attribute of the instance goes before a parameter of the same name, which stays where it is.
            owner.__dict__[key] = weight * factor.view([-1 if t == axis else 1 for t in range(weight.ndim)])

    def _restore(self) -> None:
        for owner, key, *_ in self._gated:
            owner.__dict__.pop(key, None)

    @torch.no_grad()
    def settle(self) -> None:
        """Take the gates off the module: what lives is open; soft gates become part of the weights."""
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if not self.how.straight_through:
            training, self.module.training = self.module.training, False
            self._multiply()
            self.module.training = training
            gated = {id(o._parameters[k]): (o._parameters[k], o.__dict__[k]) for o, k, *_ in self._gated}
            for weight, product in gated.values():  # each once, however many modules share it
                if weight is not None:
                    weight.copy_(product)
        self._restore()


def _owners(module: nn.Module, tensor: Tensor) -> list[tuple[nn.Module, str]]:
    """The modules that have a tensor as a parameter, and its name there."""
    return [(m, key) for m in module.modules() for key, each in m._parameters.items() if each is tensor]
