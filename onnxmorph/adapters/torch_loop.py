"""What a training loop may do to a module and its optimizer, and when that cannot go on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from onnxmorph.adapters.torch_resize import tensors
from onnxmorph.bounds import near
from onnxmorph.errors import TrainingError

IDLE = 100  # calls; a gradient scaler that looks for its scale skips fewer steps than that


class Steps:
    """Counts the steps that an optimizer really takes: a gradient scaler skips some, and accumulation most."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._taken, self._seen, self._idle = 0, 0, 0
        optimizer.register_step_post_hook(self._count)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a count would be compiled in, and again for each
    def _count(self, *_: Any) -> None:
        self._taken += 1

    def moved(self) -> bool:
        """Whether the optimizer took a step since the last call. Raises TrainingError where it never does."""
        moved, self._seen = self._taken > self._seen, self._taken
        self._idle += not self._taken
        if self._idle >= IDLE:
            raise TrainingError(
                f"step() was called {IDLE} times, and the optimizer that Morph was given never took a step; "
                "give Morph the optimizer whose step() the loop calls",
                code="optimizer-idle",
            )
        return moved


def optimizer_inside(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer in Accelerate's or Lightning's wrapper: it alone says when it stepped."""
    while True:
        inner = vars(optimizer).get("optimizer", vars(optimizer).get("_optimizer"))
        if not isinstance(inner, torch.optim.Optimizer):
            return optimizer
        optimizer = inner


def of_first_rank(numbers: Tensor) -> Tensor:
    """What the first process measured, on every rank: no rounding can make them decide differently.

    One process alone keeps its own. All processes of the default group train the one module.
    """
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and numbers.numel():
        dist.broadcast(numbers, 0)
    return numbers


def said_by_first_rank(value: Any) -> Any:
    """As `of_first_rank`, for what is found out once."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    each = [value]
    dist.broadcast_object_list(each, 0)
    return each[0]


def check_unchanged(
    module: nn.Module, optimizer: torch.optim.Optimizer, mapped: Mapping[str, Tensor], trained: Collection[str]
) -> None:
    """Raise TrainingError where the module or the optimizer is no longer what the map was made from.

    Args:
        module: as it is now.
        optimizer: as it is now.
        mapped: the parameters whose slices make up the channels, by name.
        trained: those of them that the optimizer moves.
    """
    again = "build Morph after every change to the module, and load_state_dict to go on"
    now = tensors(module)
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    for name, tensor in mapped.items():
        if name not in now:
            message = f"the module has no parameter {name!r} any more; {near(name, now)}; {again}"
            raise TrainingError(message, code="module-changed")
        if now[name] is not tensor:
            message = f"{name} is another parameter than the one Morph was built with; {again}"
            raise TrainingError(message, code="module-changed")
        if name in trained and not tensor.requires_grad:
            message = f"{name} was frozen since Morph was built, and its group needs it to shrink; leave it trained"
            raise TrainingError(f"{message}, or {again}", code="module-frozen")
        if name in trained and id(tensor) not in held:
            message = f"the optimizer does not hold {name} any more; give it the parameter back, or {again}"
            raise TrainingError(message, code="module-changed")
