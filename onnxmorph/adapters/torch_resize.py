"""A structure applied to the user's own module, and the weights of an ONNX model loaded into it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from onnxmorph.adapters.torch_sharded import sharded
from onnxmorph.errors import StructureError
from onnxmorph.structure import Structure

Hook = Callable[[nn.Module, Structure], None]
Kept = Mapping[int, Sequence[int]]  # axis of a module's weight to the kept indices


def resize(module: nn.Module, structure: Structure, on_resize: Hook | None = None) -> nn.Module:
    """A copy of the module with the structure's channels only: slices of its weights, sizes brought up to date.

    Names, tying, ``requires_grad``, buffers, hooks and training mode are those of the module, which stays as
    it is. Sizes that stand in the module's own Python code are not known here; `Morph` finds the groups that
    this would break and keeps them whole.

    Args:
        module: the module that the structure's model was exported from, or a wrapper or moving average of it.
        structure: indices may repeat (an expanded network); then `load_weights` gives the copies their weights.
        on_resize: is called with the copy and the structure, to bring the module's own attributes up to date.

    Raises:
        StructureError: the structure belongs to another module, or empties a group: then modules would have to go.
    """
    empty = next((g.id for g in structure.groups if not g.keep), None)
    if empty is not None:
        message = f"the structure removes all of group {empty!r}, which changes the network and not only its widths; "
        raise StructureError(
            f"{message}resize by one that keeps a channel of it, or use the ONNX model", code="structure-empty"
        )
    module = unwrapped(module)
    part = next((name for name, tensor in tensors(module).items() if sharded(tensor)), None)
    if part is not None:
        message = f"{part} is sharded over ranks; load the full state dict into an unsharded module and resize that"
        raise StructureError(message, code="structure-sharded")
    small = copy.deepcopy(module)
    by_name = tensors(small)
    if structure.parameters and not structure.parameters.keys() & by_name.keys():
        raise StructureError(
            "no parameter of the structure is in the module; give the module it was made from",
            code="structure-module",
        )
    keeps = frozenset((g.width, g.keep) for g in structure.groups)
    cut: dict[int, tuple[Tensor, Kept]] = {}
    for name, kept in structure.parameters.items():
        if kept and name in by_name:
            cut[id(by_name[name])] = (_sliced(name, by_name[name], kept), kept)
    for owner in small.modules():
        weight = getattr(owner, "weight", None)
        before = cut.get(id(weight))
        for table in (owner._parameters, owner._buffers):
            for key, tensor in table.items():
                if id(tensor) in cut:
                    table[key] = cut[id(tensor)][0]  # type: ignore[assignment]  # the same kind as before
        if before is not None and isinstance(weight, Tensor):
            _update_sizes(owner, weight, before[1], keeps)
    if on_resize is not None:
        on_resize(small, structure)
    return small


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
    return nn.Parameter(result, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else result


Keeps = frozenset[tuple[int, tuple[int, ...]]]  # width and kept channels of every group of a structure


def blocks(kept: Sequence[int], size: int, keeps: Keeps = frozenset()) -> int:
    """How many outer factors are left of an axis ``(outer inner)``, `size` positions each before.

    The order keeps products ordered, so a new block begins where the outer index changes or the inner falls.
    Where one inner index is left, copies of it look like copies of the outer; then `keeps` decides.

    >>> blocks([0, 1, 0, 1, 4, 5], size=4)
    3
    """
    if size == 1 or not kept:
        return len(kept)
    outer, inner = np.divmod(np.asarray(kept), size)
    if len(set(inner.tolist())) > 1:
        return 1 + int(((outer[1:] != outer[:-1]) | (inner[1:] < inner[:-1])).sum())
    live, runs = np.unique(outer, return_counts=True)
    most = int(np.gcd.reduce(runs))

    def known(copies: int) -> int:
        of_outer = tuple(np.repeat(live, runs // copies).tolist())
        of_inner = (int(inner[0]),) * copies
        return sum(keep in (of_outer, of_inner) and width >= max(keep) + 1 for width, keep in keeps)

    copies = max((k for k in range(1, most + 1) if most % k == 0), key=known)
    return len(kept) // copies


def _conv(m: Any, weight: Tensor, kept: Kept, keeps: Keeps) -> dict[str, Any]:
    groups = blocks(kept[0], weight.shape[0] // m.groups, keeps) if 0 in kept and m.groups > 1 else m.groups
    whole, part = m.weight.shape[:2]
    first, second = ("in", "out") if m.transposed else ("out", "in")
    return {"groups": groups, f"{first}_channels": whole, f"{second}_channels": part * groups}


def _group_norm(m: Any, weight: Tensor, kept: Kept, keeps: Keeps) -> dict[str, Any]:
    groups = blocks(kept[0], weight.shape[0] // m.num_groups, keeps)
    return {"num_channels": len(m.weight), "num_groups": groups}


_Sizes = Callable[[Any, Tensor, Kept, Keeps], dict[str, Any]]
# What each kind of module says about its own sizes: from itself (resized), its weight before, what was kept.
_SIZES: tuple[tuple[tuple[type[nn.Module], ...], _Sizes], ...] = (
    ((nn.modules.conv._ConvNd,), _conv),
    ((nn.Linear,), lambda m, *_: {"out_features": m.weight.shape[0], "in_features": m.weight.shape[1]}),
    ((nn.modules.batchnorm._NormBase,), lambda m, *_: {"num_features": len(m.weight)}),
    ((nn.LayerNorm, nn.RMSNorm), lambda m, *_: {"normalized_shape": tuple(m.weight.shape)}),
    ((nn.GroupNorm,), _group_norm),
    (
        (nn.Embedding, nn.EmbeddingBag),
        lambda m, *_: {"num_embeddings": m.weight.shape[0], "embedding_dim": m.weight.shape[1]},
    ),
    ((nn.PReLU,), lambda m, *_: {"num_parameters": len(m.weight)}),
)


def _update_sizes(owner: nn.Module, before: Tensor, kept: Kept, keeps: Keeps) -> None:
    for kinds, sizes in _SIZES:
        if isinstance(owner, kinds):
            for name, value in sizes(owner, before, kept, keeps).items():
                setattr(owner, name, value)


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
