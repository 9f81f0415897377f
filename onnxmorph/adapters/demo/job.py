"""What every phase of the demo shares, and the three things a phase does: train, write, check what was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console, RenderableType
from rich.text import Text
from torch import Tensor, nn

from onnxmorph.adapters.demo.images import Images
from onnxmorph.adapters.demo.recipe import Recipe
from onnxmorph.adapters.demo.table import answers, open_session
from onnxmorph.adapters.demo.training import new_optimizer, train
from onnxmorph.adapters.torch import Morph, load_weights, resize
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.converters.torch import export
from onnxmorph.surgery import Morphed
from onnxmorph.surgery.verify import relative


@dataclass(frozen=True)
class Job:
    """One run; `out` is a folder of its own until all is done.

    ``differences`` collects, per file, how far the torch module that belongs to it is from it, relative.
    """

    recipe: Recipe
    images: Images
    out: Path
    seed: int
    console: Console
    differences: dict[str, float] = field(default_factory=dict)

    @property
    def example(self) -> Tensor:
        """Two images, ``[2, channels, height, width]``."""
        return torch.from_numpy(self.images.test[:2])


def show(job: Job, *parts: RenderableType) -> None:
    """For people; silent where JSON was asked for."""
    for part in parts:
        job.console.print(Text(part) if isinstance(part, str) else part)


def fit(job: Job, module: nn.Module, title: str, phase: int, share: float, budget: str | None = None) -> Morph | None:
    """One phase of training, with the penalty where there is a budget; `phase` (0, 1, 2) chooses length and batches."""
    recipe = job.recipe
    epochs = (recipe.seed_epochs, recipe.morph_epochs, recipe.tune_epochs)[phase]
    optimizer = new_optimizer(module, recipe)
    steps = epochs * (len(job.images.train) // recipe.batch)
    morph = None if budget is None else Morph(module, job.example, optimizer, budget, steps=steps)
    rng = torch.Generator().manual_seed(3 * job.seed + phase)
    train(module, optimizer, job.images, recipe, epochs, rng, title, share, morph)
    return morph


def write(job: Job, module: nn.Module, file: str) -> Analysis:
    """Export a module, check that the file says what the module says, and analyse it."""
    export(module, job.example, job.out / file)
    _compare(job, module, file)
    return analyze(job.out / file)


def write_morphed(job: Job, morphed: Morphed, module: nn.Module, file: str) -> nn.Module:
    """Save a rewritten network; returns the module it came from, resized to be the same network."""
    morphed.save(job.out / file)
    resized = resize(module, morphed.structure)
    load_weights(resized, morphed.model)
    _compare(job, resized, file)
    return resized


def _compare(job: Job, module: nn.Module, file: str) -> None:
    module.eval()
    with torch.no_grad():
        mine = module(torch.from_numpy(job.images.test)).numpy()
    job.differences[file] = relative(answers(open_session(job.out / file), job.images.test), mine)
