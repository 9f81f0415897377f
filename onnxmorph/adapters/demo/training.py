"""The training loop of the demo, with a bar that says how long it will take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from onnxmorph.adapters.demo.images import Images
from onnxmorph.adapters.demo.recipe import Recipe
from onnxmorph.adapters.torch import Morph

MOMENTUM = 0.9
RISE, FALL = 0.1, 0.2  # of the steps


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """The same sums in the same order every time; torch's settings are put back afterwards."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def new_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum, as all phases use it."""
    return torch.optim.SGD(module.parameters(), recipe.rate, MOMENTUM, weight_decay=recipe.decay, nesterov=True)


def train(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Images,
    recipe: Recipe,
    epochs: int,
    rng: torch.Generator,
    title: str,
    share: float,
    morph: Morph | None = None,
) -> None:
    """One phase, at the learning rates of `pace`.

    Args:
        module: is trained in place, and left in eval mode.
        optimizer: holds its parameters.
        images: the training part is used; images that fill no batch wait for the next epoch.
        recipe: batch size and augmentation.
        epochs: how many.
        rng: for the order of images and their augmentation.
        title: of the bar.
        share: of the seed's FLOPs, for the bar, until `morph` knows better.
        morph: has its step after the optimizer's.
    """
    x, y = torch.from_numpy(images.train), torch.from_numpy(images.train_labels)
    steps = epochs * (len(x) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace(step, steps))
    background = x.amin((0, 2, 3)) if recipe.data == "digits" else torch.zeros(x.shape[1])
    whole = 1 if morph is None else morph.analysis.costs["flops"].value(morph.analysis.widths)
    module.train()
    with _bars() as bars:
        bar = bars.add_task(title, total=epochs, loss=math.nan, share=share, strength=0.0)
        for epoch in range(epochs):
            order = torch.randperm(len(x), generator=rng)
            batches = order[: len(x) // recipe.batch * recipe.batch].split(recipe.batch)
            for k, chosen in enumerate(batches, 1):
                loss = F.cross_entropy(module(_augmented(x[chosen], recipe, background, rng)), y[chosen])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if morph is not None:
                    morph.step()
                schedule.step()
                strength = 0.0 if morph is None else morph.strength
                bars.update(bar, completed=epoch + k / len(batches), loss=loss.item(), strength=strength)
            if morph is not None:
                bars.update(bar, share=morph.cost["flops"] / whole)
    module.eval()


def pace(step: int, steps: int) -> float:
    """The learning rate as a share of the largest: up over the first tenth, down over the last fifth.

    In between it stays, so that a network whose channels go can make up for it.

    >>> [round(pace(step, 100), 3) for step in (0, 9, 50, 80, 90, 99)]
    [0.1, 1.0, 1.0, 1.0, 0.5, 0.05]
    """
    return min(1.0, (step + 1) / (RISE * steps), (steps - step) / (FALL * steps))


def _augmented(x: Tensor, recipe: Recipe, background: Tensor, rng: torch.Generator) -> Tensor:
    """Every image shifted by its own random offset, and mirrored or not, ``[n, channels, h, w]``."""
    (n, channels, height, width), reach, device = x.shape, recipe.shift, x.device
    if reach:
        padded = background.view(1, -1, 1, 1).repeat(n, 1, height + 2 * reach, width + 2 * reach)
        padded[:, :, reach:-reach, reach:-reach] = x
        down, right = torch.randint(2 * reach + 1, (2, n, 1, 1, 1), generator=rng, device=device)
        image, channel, rows, columns = (
            torch.arange(size, device=device).view([-1 if d == axis else 1 for d in range(4)])
            for axis, size in enumerate((n, channels, height, width))
        )
        x = padded[image, channel, down + rows, right + columns]
    if recipe.flip:
        mirrored = torch.rand(n, 1, 1, 1, generator=rng, device=device) < 0.5
        x = torch.where(mirrored, x.flip(3), x)
    return x


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f} FLOPs {task.fields[share]:.0%} λ {task.fields[strength]:.0e}"),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
