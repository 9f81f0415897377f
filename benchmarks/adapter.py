"""What the adapter adds to a training step: time, memory, and, where a GPU is there, waiting for it.

The steps measured are in the midst of 2,000 planned ones, so that channels go while the clock runs; those before are
taken without a loss. On the CPU time is processor time of one thread; images are of 64×64 pixels there, so that a run
lasts seconds, and of 224×224 for memory.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import network
from benchmarks.timing import Row
from full_nets import VisionTransformer
from onnxmorph.adapters.torch import Morph

BATCH, SIZE, LARGE = 16, 64, 224
PLANNED, BEFORE, WARM, STEPS = 2000, 800, 2, 40
SHARE, MEMORY = 0.03, 0.01


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 1e-3, momentum=0.9)


def adam(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, 1e-4)


@dataclass(frozen=True)
class Case:
    """A network and its optimizer; a ViT has no norms that silence a channel, so that all its slices are measured."""

    name: str
    optimizer: str
    build: Callable[[int], nn.Module]
    optimize: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def vit(size: int) -> nn.Module:
    """Four layers over 64 patches."""
    return VisionTransformer(size, patch=size // 8, depth=4, heads=6, width=384, hidden=1536)


CASES = (
    Case("resnet18", "SGD", lambda size: network("resnet18"), sgd),
    Case("resnet18", "Adam", lambda size: network("resnet18"), adam),
    Case("resnet50", "SGD", lambda size: network("resnet50"), sgd),
    Case("resnet50", "Adam", lambda size: network("resnet50"), adam),
    Case("vit", "Adam", vit, adam),
)


class Training:
    """A network about to be trained."""

    def __init__(self, case: Case, device: str, size: int = SIZE) -> None:
        torch.manual_seed(0)
        self.module = case.build(size).train().to(device)
        self.optimizer = case.optimize(self.module.parameters())
        self.images = torch.randn(BATCH, 3, size, size, device=device)
        self.labels = torch.randint(0, 1000, (BATCH,), device=device)

    def step(self) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.module(self.images), self.labels).backward()
        self.optimizer.step()

    def morph(self) -> Morph:
        return Morph(self.module, self.images[:2], self.optimizer, budget="flops=50%", steps=PLANNED)

    def kept(self) -> dict[int, int]:
        """The storages that stay from step to step."""
        tensors = [*self.module.parameters(), *self.module.buffers(), self.images, self.labels]
        gradients = [p.grad for p in self.module.parameters() if p.grad is not None]
        state = [v for each in self.optimizer.state.values() for v in each.values() if isinstance(v, Tensor)]
        return storages([*tensors, *gradients, *state])


def run() -> list[Row]:
    torch.set_num_threads(1)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    return [row for device in devices for case in CASES for row in rows(case, device)]


def rows(case: Case, device: str) -> Iterator[Row]:
    what, place = f"{case.name}: step() with {case.optimizer}", "" if device == "cpu" else f", {device}"
    against = f"training step, {BATCH} × {SIZE}²{place}"
    mine, theirs, waits = timed(Training(case, device), device)
    yield Row(what, mine, against, theirs, SHARE)
    if device == "cuda":
        yield Row(f"{what}, waits for the GPU", waits, f"steps{place}", STEPS, unit="count")
    extra, whole = morph_memory(Training(case, device)), step_memory(Training(case, device, LARGE))
    against = f"training step, {BATCH} × {LARGE}²{place}"
    yield Row(f"{case.name}: memory with {case.optimizer}", extra / 2**20, against, whole / 2**20, MEMORY, unit="MiB")


def timed(training: Training, device: str) -> tuple[float, float, int]:
    """Mean seconds of Morph's step and of the training step, and how often Morph's waited for the GPU."""
    morph = training.morph()
    training.step()
    training.optimizer.zero_grad(set_to_none=False)
    for _ in range(BEFORE):
        training.optimizer.step()
        morph.step()
    ours, theirs, waits = [], [], 0
    for n in range(WARM + STEPS):
        start = now(device)
        training.step()
        middle = now(device)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            morph.step()
            if device == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        if n >= WARM:
            theirs.append(middle - start)
            ours.append(now(device) - middle)
            waits += sum("synchroniz" in str(each.message) for each in caught)
    return statistics.mean(ours), statistics.mean(theirs), waits


def now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


# ---------------------------------------------------------------- memory


def step_memory(training: Training) -> int:
    """Bytes of parameters, buffers, gradients, what the optimizer remembers, and what is saved for backward."""
    before, saved = training.kept(), dict[int, int]()

    def pack(tensor: Tensor) -> Tensor:
        saved.update(storages([tensor]))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        training.step()
    return sum(training.kept().values()) + sum(size for place, size in saved.items() if place not in before)


def morph_memory(training: Training) -> int:
    """Bytes of Python objects, arrays and tensors that a Morph keeps, and what its step takes for a moment.

    It is the second of two that counts: what a process remembers of its last export is there with the first.
    """
    tracemalloc.start()
    first = training.morph()
    training.step()
    gc.collect()
    before, (memory, _) = live_tensors(), tracemalloc.get_traced_memory()
    morph = training.morph()
    gc.collect()
    tracemalloc.reset_peak()
    for _ in range(STEPS):
        training.optimizer.step()
        morph.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first.analysis is not morph.analysis  # both are alive
    others = before | training.kept()
    return peak - memory + sum(size for place, size in live_tensors().items() if place not in others)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Where the tensors' numbers are, and how many bytes."""
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def live_tensors() -> dict[int, int]:
    return storages(each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter))
