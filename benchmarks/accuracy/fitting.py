"""The training loop that all methods share: one schedule from the first epoch to the last, whatever happens between."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from benchmarks.accuracy.backward import Backward
from benchmarks.accuracy.experiment import Recipe
from onnxmorph.adapters.demo.images import Images, read_images
from onnxmorph.adapters.demo.training import _augmented, pace
from onnxmorph.adapters.torch import Morph

CACHE = Path(os.environ.get("ONNXMORPH_CACHE", "out/accuracy"))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LAYOUT = torch.channels_last if DEVICE.type == "cuda" else torch.contiguous_format


@dataclass
class Data:
    """Images and labels as tensors."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @property
    def colours(self) -> int:
        return self.train.shape[1]


def data_of(recipe: Recipe, path: Path | None) -> Data:
    """The images of a recipe on the device, decoded once into an ignored folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    wanted: Any = SimpleNamespace(data=recipe.data, train_images=recipe.train_images, test_images=recipe.test_images)
    images: Images = read_images(wanted, path if recipe.data == "cifar10" else None, CACHE)

    def small(x: Any) -> Tensor:
        tensor = torch.from_numpy(x)
        return (F.avg_pool2d(tensor, recipe.shrink_images) if recipe.shrink_images > 1 else tensor).to(DEVICE)

    train, test = small(images.train), small(images.test)
    train_labels, test_labels = (torch.from_numpy(y).to(DEVICE) for y in (images.train_labels, images.test_labels))
    if recipe.validation:
        train, test = train.split(len(train) - recipe.validation)
        train_labels, test_labels = train_labels.split(len(train_labels) - recipe.validation)
    return Data(train, train_labels, test, test_labels)


def new_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    fused = DEVICE.type == "cuda"
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(module.parameters(), recipe.rate, weight_decay=recipe.decay, fused=fused)
    decay = recipe.decay
    return torch.optim.SGD(module.parameters(), recipe.rate, 0.9, weight_decay=decay, nesterov=True, fused=fused)


def accuracy(module: nn.Module, data: Data, batch: int = 2500) -> float:
    """On the test images, in float32."""
    module.eval()
    with torch.no_grad():
        right = sum(
            (module(x).argmax(1) == y).sum()
            for x, y in zip(data.test.split(batch), data.test_labels.split(batch), strict=True)
        )
    return int(right) / len(data.test)


class Fit:
    """One training: epochs are taken in parts, the schedule runs on over all of them."""

    def __init__(self, recipe: Recipe, data: Data, seed: int, curve: Path) -> None:
        self.recipe, self.data = recipe, data
        self.rng = torch.Generator(DEVICE).manual_seed(seed)
        self.epoch, self.curve, self.rows = 0, curve, list[dict[str, float]]()
        self.before = 0  # epochs of another training that this one needed
        self.widths: dict[str, int] = {}  # of every group, where a structure says so

    def steps(self, epochs: float) -> int:
        return round(epochs * (len(self.data.train) // self.recipe.batch))

    def go(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        epochs: int,
        morph: Morph | None = None,
        before_step: Callable[[], None] | None = None,
        teacher: nn.Module | None = None,
        average: AveragedModel | None = None,
    ) -> None:
        """So many epochs further.

        Args:
            module: is trained in place.
            optimizer: over its parameters.
            epochs: how many.
            morph: has its step after the optimizer's, and its term in the loss where that is its method.
            before_step: changes gradients, as sparse learning does.
            teacher: what the module also learns from.
            average: of the weights, is kept.
        """
        recipe, whole = self.recipe, self.steps(self.recipe.epochs)
        x, y = self.data.train, self.data.train_labels
        background = x.amin((0, 2, 3)) if recipe.data == "digits" else x.new_zeros(x.shape[1])
        augmentation: Any = recipe
        term = morph.loss_term if morph is not None and morph.method == "loss" else None
        gated = morph is not None and "gate" in morph.magnitudes.values()
        backward = Backward(module, optimizer, recipe.precision, teacher, term, changes=gated)
        for _ in range(epochs):
            module.train()
            order, losses = torch.randperm(len(x), generator=self.rng, device=DEVICE), list[Tensor]()
            batches = order[: len(x) // recipe.batch * recipe.batch].split(recipe.batch)
            for k, chosen in enumerate(batches):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.rate * pace(self.epoch * len(batches) + k, whole)
                images = _augmented(x[chosen], augmentation, background, self.rng).contiguous(memory_format=LAYOUT)
                losses.append(backward(images, y[chosen]))
                if before_step is not None:
                    before_step()
                optimizer.step()
                if morph is not None:
                    morph.step()
                if average is not None:
                    average.update_parameters(module)
            self.epoch += 1
            row = {
                "epoch": self.epoch,
                "loss": float(torch.stack(losses).mean()),
                "accuracy": accuracy(module, self.data),
            }
            if morph is not None:
                row |= {"flops": morph.cost["flops"], "params": morph.cost["params"], "strength": morph.strength}
            self.rows.append(row)

    def save(self) -> None:
        """The curve: a row per epoch."""
        columns = ["epoch", "loss", "accuracy", "flops", "params", "strength"]
        self.curve.parent.mkdir(parents=True, exist_ok=True)
        with self.curve.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows({k: round(v, 6) for k, v in row.items()} for row in self.rows)
