"""A small network on handwritten digits; the loop keeps a checkpoint, and dies after an epoch where it is told to."""

from __future__ import annotations

import os
import signal

import torch
from sklearn.datasets import load_digits
from torch import nn

from onnxmorph import Round
from onnxmorph.adapters.torch import Morph
from onnxmorph.adapters.torch_algorithm import trains
from onnxmorph.files import whole

EPOCHS, BATCH, TRAINING = 4, 100, 600

torch.set_num_threads(1)
pixels, labels = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
images = pixels.float().view(-1, 1, 8, 8) / 16


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(64, 10)),
    )


@trains(network(), images[:2])
def train(module: nn.Module, round: Round) -> tuple[Morph | None, float]:
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    parts = {"module": module, "optimizer": optimizer}
    morph = None
    if round.budget is not None:
        steps = EPOCHS * (TRAINING // BATCH)
        parts["morph"] = morph = Morph(module, images[:2], optimizer, round.budget, steps=steps, bounds=round.bounds)
    begin, kept = 0, round.folder / "checkpoint.pt"
    if kept.exists():
        saved = torch.load(kept, weights_only=True)
        begin = saved.pop("epoch")
        for name, state in saved.items():
            parts[name].load_state_dict(state)
    module.train()
    for epoch in range(begin, EPOCHS):
        torch.manual_seed(100 * round.seed + epoch)
        for chosen in torch.randperm(TRAINING).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            if morph is not None:
                morph.step()
        if morph is not None:
            round.visit(morph.structure())
        with whole(kept) as place:
            torch.save({"epoch": epoch + 1, **{name: part.state_dict() for name, part in parts.items()}}, place)
        with (round.folder / "epochs").open("a") as file:
            print(epoch, file=file)
        if os.environ.get("DIE_AFTER") == f"{round.number} {epoch}":
            os.kill(os.getpid(), signal.SIGKILL)
    module.eval()
    with torch.no_grad():
        right = module(images[TRAINING:]).argmax(1) == labels[TRAINING:]
    return morph, right.float().mean().item()
