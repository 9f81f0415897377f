"""A structure applied to the user's own module and its checkpoints, and an ONNX model's weights loaded into it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from onnxmorph.adapters.torch_layers import Before, Kept, update_sizes
from onnxmorph.adapters.torch_sharded import sharded
from onnxmorph.adapters.torch_sizes import set_sizes
from onnxmorph.errors import StructureError
from onnxmorph.structure import Structure

Hook = Callable[[nn.Module, Structure], None]
_WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel, AveragedModel and torch.compile put before names


def resize(module: nn.Module, structure: Structure, on_resize: Hook | None = None) -> nn.Module:
    """A copy of the module with the structure's channels only: slices of its weights, sizes brought up to date.

    Names, tying, ``requires_grad``, buffers, hooks and training mode are those of the module, which stays as
    it is. Of sizes in the module's own attributes it knows what the structure says: `Morph` finds them, and keeps
    the groups whole that the module does not follow nevertheless.

    Args:
        module: the module that the structure's model was exported from, or a wrapper or moving average of it.
        structure: indices may repeat (an expanded network); then `load_weights` gives the copies their weights.
        on_resize: is called with the copy and the structure, to bring further attributes up to date.

    Raises:
        StructureError: the structure belongs to another module, changes a group that it does not follow, or empties
            one: then modules would have to go.
    """
    empty = next((g.id for g in structure.groups if not g.keep), None)
    if empty is not None:
        raise StructureError(
            f"the structure removes all of group {empty!r}, which changes the network and not only its widths; train "
            "the ONNX graph as a module, onnxmorph.converters.torch_back.to_module(onnxmorph.shrink("
            "export(module, example_inputs), structure).model), or resize by a structure that keeps a channel of it",
            code="structure-empty",
        )
    _check_followed(structure)
    module = unwrapped(module)
    part = next((name for name, tensor in tensors(module).items() if sharded(tensor)), None)
    if part is not None:
        message = f"{part} is sharded over ranks; load the full state dict into an unsharded module and resize that"
        raise StructureError(message, code="structure-sharded")
    small = copy.deepcopy(module)
    by_name, keeps = tensors(small), frozenset((g.width, g.keep) for g in structure.groups)
    cut = {id(by_name[n]): (_sliced(n, by_name[n], kept), kept) for n, kept in kept_indices(small, structure).items()}
    for owner in small.modules():
        before: Before = {}
        for table in (owner._parameters, owner._buffers):
            for key, tensor in table.items():
                if tensor is not None and id(tensor) in cut:
                    table[key], kept = cut[id(tensor)]  # type: ignore[assignment]  # the same kind as before
                    before[key] = (tensor, kept)
        update_sizes(owner, before, keeps)
    set_sizes(small, structure.provenance.get("attributes", {}), {g.id: len(g.keep) for g in structure.groups})
    if on_resize is not None:
        on_resize(small, structure)
    return small


def _check_followed(structure: Structure) -> None:
    """Raise StructureError where a group is changed that `Morph` found the module not to follow."""
    wrong = [g.id for g in structure.groups if g.id in structure.locked and g.keep != tuple(range(g.width))]
    if wrong:
        raise StructureError(
            f"the module does not follow group {wrong[0]!r}, which the structure changes; choose channels with "
            "bounds=Bounds(keep=sorted(structure.locked)), or use the ONNX model",
            code="structure-locked",
        )


def kept_indices(module: nn.Module, structure: Structure) -> dict[str, Kept]:
    """What is kept of every parameter and buffer that the structure cuts: name to axis to indices, in new order.

    A tensor with several names is listed under each of them; an axis that is not listed stays whole.

    Raises:
        StructureError: no parameter of the structure is in the module.
    """
    by_name = tensors(unwrapped(module))
    if structure.parameters and not structure.parameters.keys() & by_name.keys():
        raise StructureError(
            "no parameter of the structure is in the module; give the module it was made from",
            code="structure-module",
        )
    of = {id(by_name[name]): kept for name, kept in structure.parameters.items() if kept and name in by_name}
    return {name: of[id(tensor)] for name, tensor in by_name.items() if id(tensor) in of}


def resize_state(state: Mapping[str, Any], kept: Mapping[str, Kept]) -> dict[str, Any]:
    """A ``state_dict`` of the whole module as one of the resized module: a checkpoint's, or a moving average's.

    Args:
        state: may have the names of a wrapper (DistributedDataParallel, AveragedModel, torch.compile) and further
            entries, which stay as they are.
        kept: by `kept_indices`.

    Raises:
        StructureError: a tensor is too small to be of that module, or none has a name of it.
    """
    found, cut = dict(state), 0
    for name, value in state.items():
        bare = name
        while bare not in kept and (wrapper := next((w for w in _WRAPPERS if bare.startswith(w)), None)):
            bare = bare.removeprefix(wrapper)
        if bare in kept:
            found[name], cut = _sliced(name, value, kept[bare]), cut + 1
    if kept and not cut:
        message = f"the state has no {next(iter(kept))!r}, nor any other name that is cut"
        raise StructureError(f"{message}; give a state_dict of the module", code="structure-module")
    return found


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside ``torch.compile``, DistributedDataParallel and AveragedModel, whose names it has."""
    while True:
        if "_orig_mod" in module._modules:  # torch.compile's wrapper; naming its class would load the compiler
            module = module.get_submodule("_orig_mod")
        elif isinstance(module, (nn.parallel.DistributedDataParallel, AveragedModel)):
            module = module.module
        else:
            return module


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every name they have."""
    return {
        **dict(module.named_buffers(remove_duplicate=False)),
        **dict(module.named_parameters(remove_duplicate=False)),
    }


def _layout(tensor: Tensor) -> torch.memory_format:
    """Whether its channels come last in memory."""
    if not tensor.is_contiguous():
        for ndim, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
            if tensor.ndim == ndim and tensor.is_contiguous(memory_format=layout):
                return layout
    return torch.contiguous_format


def _sliced(name: str, tensor: Tensor, kept: Kept) -> Tensor:
    result = tensor.detach()
    for axis, indices in kept.items():
        if axis >= result.ndim or max(indices, default=-1) >= result.shape[axis]:
            raise StructureError(
                f"{name} has the shape {tuple(tensor.shape)}, too small for the structure; "
                "give the module it was made from",
                code="structure-module",
            )
        result = result.index_select(axis, torch.tensor(indices, dtype=torch.int64, device=result.device))
    if (layout := _layout(tensor)) != torch.contiguous_format:
        result = result.contiguous(memory_format=layout)
    return nn.Parameter(result, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else result


def load_weights(module: nn.Module, model: ir.Model) -> tuple[str, ...]:
    """Copy the initializers of a model into the module's parameters and buffers of the same names, in place.

    Returns the names that belong to a submodule which has no place for them (a bias that folding added).

    Raises:
        StructureError: a shape differs.
    """
    by_name, owners, left = tensors(module), dict(module.named_modules()), []
    for name, value in model.graph.initializers.items():
        array = value.const_value
        if array is None or not array.dtype.is_floating_point():
            continue
        if name not in by_name:
            if name.rpartition(".")[0] in owners and "." in name:
                left.append(name)
            continue
        target = by_name[name]
        if tuple(array.shape) != tuple(target.shape):
            message = f"{name} is {tuple(array.shape)} in the model and {tuple(target.shape)} in the module"
            raise StructureError(f"{message}; resize the module by the same structure", code="structure-module")
        with torch.no_grad():
            target.copy_(torch.from_numpy(array.numpy().copy()))
    return tuple(left)
