"""Gradients of a module by parameter name, for Taylor scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Batch = TypeVar("Batch")


def gradients(
    module: nn.Module, loss: Callable[[nn.Module, Batch], Tensor], batches: Iterable[Batch]
) -> dict[str, NDArray[np.float32]]:
    """The gradient of the loss by parameter name, ``[batches, *shape]``, each batch for itself.

    Batches are not averaged here: in a trained network their gradients cancel out, and what is left says little. The
    score squares what a channel does to the loss of a batch before it averages. So memory is that of the parameters
    times the number of batches; a dozen is enough to rank channels. The module is in eval mode meanwhile; its
    gradients, modes and statistics stay as they are. What is not trained has a gradient of 0.

    Args:
        module: the one that was exported.
        loss: of a module and a batch, a scalar: ``lambda module, batch: cross_entropy(module(batch[0]), batch[1])``.
        batches: any iterable.

    Source: Molchanov et al. 2019 (arXiv 1906.10771), equation 8.
    """
    named = dict(module.named_parameters(remove_duplicate=False))
    trained = list({id(p): p for p in named.values() if p.requires_grad}.values())
    modes = [(part, part.training) for part in module.modules()]
    found: dict[int, list[NDArray[np.float32]]] = {id(p): [] for p in trained}
    module.eval()
    try:
        for batch in batches:
            with torch.enable_grad():
                each = torch.autograd.grad(loss(module, batch), trained, allow_unused=True, materialize_grads=True)
            for parameter, gradient in zip(trained, each, strict=True):
                found[id(parameter)].append(gradient.float().cpu().numpy())
    finally:
        for part, training in modes:
            part.training = training
    still = {n: b for n, b in module.named_buffers(remove_duplicate=False) if b.is_floating_point()} | named
    zeros = {
        name: np.zeros(tuple(tensor.shape), np.float32) for name, tensor in still.items() if id(tensor) not in found
    }
    return {**zeros, **{name: np.stack(found[id(p)]) for name, p in named.items() if id(p) in found}}
