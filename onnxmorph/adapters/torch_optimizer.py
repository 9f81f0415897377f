"""What an optimizer remembers, cut along with the module, so that training goes on without a jump."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from onnxmorph.adapters.torch_layers import Kept
from onnxmorph.adapters.torch_loop import optimizer_inside
from onnxmorph.adapters.torch_resize import kept_indices, tensors, unwrapped
from onnxmorph.errors import StructureError
from onnxmorph.structure import Structure


def resize_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, small: nn.Module, structure: Structure
) -> None:
    """Let the optimizer train the resized module in the place of the whole one, from where it stands.

    It stays the object it is, so that learning rate schedules, gradient scalers and hooks go on with it. Parameter
    groups keep their order and settings, and parameters of other modules stay. What it remembers of a parameter is
    taken along the kept indices, element by element; what it remembers as one number per row (Adafactor) is kept for
    the rows that live.

    Args:
        optimizer: holds parameters of `module`; itself or a trainer's wrapper of it.
        module: as given to `resize`.
        small: what `resize` made of it.
        structure: the same.

    Raises:
        StructureError: `small` is not that module by this structure, or the optimizer remembers something else than
            numbers per element or row (LBFGS); then it stays as it was.
    """
    inner = optimizer_inside(optimizer)
    kept, found = kept_indices(module, structure), tensors(unwrapped(small))
    names = {id(tensor): name for name, tensor in reversed(tensors(unwrapped(module)).items())}
    moved: dict[Tensor, Tensor] = {}
    for parameter in (p for group in inner.param_groups for p in group["params"]):
        name = names.get(id(parameter))
        if name is None:
            moved[parameter] = parameter
            continue
        if name not in found or found[name].shape != _shape(parameter, kept.get(name, {})):
            message = f"{name} is not what the structure makes of the module's; give what `resize` made of it"
            raise StructureError(message, code="structure-module")
        moved[parameter] = found[name]
    state = {
        new: {k: _cut(k, v, p, new, kept.get(names.get(id(p), ""), {})) for k, v in inner.state.get(p, {}).items()}
        for p, new in moved.items()
    }
    for p in moved:
        inner.state.pop(p, None)
    inner.state.update({p: of for p, of in state.items() if of})
    for group in inner.param_groups:
        group["params"][:] = [moved[p] for p in group["params"]]


def _shape(tensor: Tensor, kept: Kept) -> tuple[int, ...]:
    return tuple(len(kept[axis]) if axis in kept else size for axis, size in enumerate(tensor.shape))


def _cut(key: str, value: Any, parameter: Tensor, new: Tensor, kept: Kept) -> Any:
    """One thing that is remembered of a parameter: a number, or a tensor whose axes are as long as its, or 1.

    What has an element for each of the new parameter's lies in memory as that does: fused optimizers go by the order
    there.
    """
    if not isinstance(value, Tensor) or value.numel() == 1:
        return value
    if value.ndim != parameter.ndim or any(a not in (1, b) for a, b in zip(value.shape, parameter.shape, strict=True)):
        raise StructureError(
            f"the optimizer remembers {key!r} of shape {tuple(value.shape)} for a parameter of shape "
            f"{tuple(parameter.shape)}, which cannot be cut along; start a new optimizer on the resized module",
            code="optimizer-state",
        )
    for axis, indices in kept.items():
        if value.shape[axis] > 1:
            value = value.index_select(axis, torch.tensor(indices, dtype=torch.int64, device=value.device))
    if value.shape == new.shape and value.stride() != new.stride():
        value = torch.empty_like(new, dtype=value.dtype, requires_grad=False).copy_(value)
    return value
