"""Forward and backward pass of one batch; on a GPU as a CUDA graph: else small networks wait for the host."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 4.0  # of a teacher's softmax, Hinton et al. 2015
ORDINARY = 3  # batches before a graph is recorded: libraries choose their kernels in them


class Backward:
    """Leaves the gradients of the loss in the parameters, and returns the loss.

    Whoever trains on a GPU uses one stream for all, not the default one: graphs cannot be recorded there.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        precision: str,
        teacher: nn.Module | None = None,
        term: Callable[[], Tensor] | None = None,
        changes: bool = False,
    ) -> None:
        """Nothing is computed yet.

        Args:
            module: is trained.
            optimizer: over what gets the gradients.
            precision: ``float32``, or ``bfloat16``: autocast.
            teacher: half the loss is then the distance from its softmax.
            term: is added to the loss.
            changes: whether the module does not compute the same from batch to batch, so that no graph can be recorded.
        """
        self.module, self.optimizer, self.precision = module, optimizer, precision
        self.teacher, self.term = teacher, term
        self.records = next(module.parameters()).is_cuda and term is None and not changes
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        if not self.records or self.calls <= ORDINARY:
            self.optimizer.zero_grad()
            return self._computed(images, labels)
        if self.graph is None:
            self._record(images, labels)
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()  # type: ignore[union-attr]
        return self.loss.clone()

    def _computed(self, images: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            scores = self.module(images)
            loss = F.cross_entropy(scores, labels)
            if self.teacher is not None:
                with torch.no_grad():
                    wanted = F.log_softmax(self.teacher(images) / TEMPERATURE, 1)
                found = F.log_softmax(scores / TEMPERATURE, 1)
                loss = (loss + TEMPERATURE**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)) / 2
        (loss if self.term is None else loss + self.term()).backward()
        return loss.detach()

    def _record(self, images: Tensor, labels: Tensor) -> None:
        """What is recorded makes the gradients anew in every replay, where they lie."""
        self.optimizer.zero_grad()
        self.images, self.labels = images.clone(memory_format=torch.preserve_format), labels.clone()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            self.loss = self._computed(self.images, self.labels)
        self.graph = graph
