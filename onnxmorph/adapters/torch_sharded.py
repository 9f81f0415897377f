"""Parameters that ranks share among them, as FSDP2 does: each rank measures, scales and zeroes the part that it has."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from onnxmorph.errors import TrainingError

if dist.is_available():
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor, Replicate, Shard


def sharded(tensor: Tensor) -> bool:
    """Whether this rank may have a part of it only."""
    return dist.is_available() and isinstance(tensor, DTensor)


def mine(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor, in the same memory; all of one that is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def held(tensor: Tensor, axis: int) -> Tensor | None:
    """The positions along an axis that this rank has, ``[held]``; None of a tensor that is not sharded."""
    if not isinstance(tensor, DTensor):
        return None
    kinds = {type(p).__name__ for p in tensor.placements if type(p) not in (Shard, Replicate)}
    if kinds:
        message = f"a parameter is placed by {kinds.pop()}, which is not followed; use Shard and Replicate alone"
        raise TrainingError(message, code="training-sharded")
    every = torch.arange(tensor.shape[axis], device=tensor.to_local().device)
    whole = DTensor.from_local(every, tensor.device_mesh, [Replicate()] * tensor.device_mesh.ndim)
    along = [Shard(0) if p == Shard(axis) else Replicate() for p in tensor.placements]
    return whole.redistribute(placements=along).to_local()


def counts(tensor: Tensor) -> bool:
    """Whether this rank, of all that have the same part of a tensor, is the one whose sums count."""
    if not isinstance(tensor, DTensor):
        return dist.get_rank() == 0
    at = tensor.device_mesh.get_coordinate() or ()
    return not any(place for place, p in zip(at, tensor.placements, strict=True) if p == Replicate())


def added_up(numbers: Tensor) -> Tensor:
    """The sum over all ranks, on each."""
    numbers = numbers.clone()
    dist.all_reduce(numbers)
    return numbers


def reshard(module: nn.Module) -> None:
    """Let FSDP have its parameters sharded: after a forward alone the module still shows gathered copies."""
    if dist.is_available():
        for each in module.modules():
            if isinstance(each, FSDPModule):
                each.reshard()


def check_whole(by_name: Mapping[str, Tensor], whole: Mapping[str, Tensor] | None) -> None:
    """Raise TrainingError where a module, by its tensors, is sharded and not given whole, or that is another one."""
    if whole is None:
        first = next((name for name, tensor in by_name.items() if sharded(tensor)), None)
        if first is not None:
            message = f"{first} is sharded over ranks, and so cannot be exported; give whole=, a module built alike"
            raise TrainingError(f"{message} and not sharded, whatever its weights", code="training-sharded")
        return
    for name, tensor in by_name.items():
        if name not in whole or whole[name].shape != tensor.shape:
            other = f"is {tuple(whole[name].shape)} in" if name in whole else "is not in"
            message = f"{name}, {tuple(tensor.shape)}, {other} the module given as whole; build both alike"
            raise TrainingError(message, code="training-sharded")
