"""What trainers' callbacks share: what to find out before a `Morph` is built, and the end."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from onnxmorph.adapters.torch import Morph
from onnxmorph.adapters.torch_resize import unwrapped
from onnxmorph.errors import TrainingError


def part_of(module: nn.Module, part: str) -> nn.Module:
    """The network in a trained module: the attribute ``part`` (dots go deeper), or all of it where that is empty."""
    try:
        return unwrapped(module.get_submodule(part))
    except AttributeError:
        names = ", ".join(name for name, _ in module.named_children())
        message = f"{type(module).__name__} has no part {part!r}; its parts are {names or 'none'}"
        raise TrainingError(message, code="training-part") from None


def optimizer_of(network: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """The first optimizer that holds parameters of the network."""
    mine = {id(p) for p in network.parameters()}
    for optimizer in optimizers:
        if any(id(p) in mine for group in optimizer.param_groups for p in group["params"]):
            return optimizer
    message = f"no optimizer of the trainer holds parameters of {type(network).__name__}; its part may be another"
    raise TrainingError(message, code="training-optimizer")


def meet(morph: Morph | None) -> None:
    """Meet the budget where all planned steps were taken and it is not met."""
    if morph is not None and not morph.done and morph.over:
        morph.finish()
