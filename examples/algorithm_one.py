"""The whole of Algorithm 1: train, shrink, expand, until the widths settle; then train the result.

python examples/algorithm_one.py [FOLDER]

Called again with the same folder it goes on where it was stopped. The same from the command line, with the network as a
file (the example leaves it as FOLDER/seed.onnx):

onnxmorph morph examples/algorithm_one.py:train seed.onnx --budget flops=100% --shrink flops=60% -o OTHER_FOLDER
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import onnxmorph
from onnxmorph.adapters.torch import Morph
from onnxmorph.adapters.torch_algorithm import trains
from onnxmorph.converters.torch import export

EPOCHS, BATCH, TRAINING = 4, 50, 1200
torch.manual_seed(0)

pixels, labels = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
images = pixels.float().view(-1, 1, 8, 8) / 16
network = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(64, 10)),
)


@trains(network, images[:2])
def train(module: nn.Module, round: onnxmorph.Round) -> tuple[Morph | None, float]:
    torch.manual_seed(round.seed)
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    steps = EPOCHS * (TRAINING // BATCH)
    morph = None if round.last else Morph(module, images[:2], optimizer, round.budget, steps=steps)
    module.train()
    for _ in range(EPOCHS):
        for chosen in torch.randperm(TRAINING).split(BATCH):
            loss = nn.functional.cross_entropy(module(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if morph is not None:
                morph.step()
        if morph is not None:
            round.visit(morph.structure())  # what it goes through, for the list
    module.eval()
    with torch.no_grad():
        right = module(images[TRAINING:]).argmax(1) == labels[TRAINING:]
    return morph, right.float().mean().item()


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/algorithm_one")
    plan = onnxmorph.Plan(budget="flops=100%", shrink="flops=60%", rounds=3)
    run = onnxmorph.morph(train, export(network, images[:2]), plan, out, progress=print)
    for each in run.visited:
        if each.metric is not None:
            mark = "●" if each.pareto else " "
            print(
                f"{mark} round {each.round} {each.kind:<8} {each.costs['flops']:>8,} FLOPs  accuracy {each.metric:.2%}"
            )
    print(f"widths: {[(g.id, g.width) for g in onnxmorph.analyze(run.model).groups]}")
    print(f"settled: {run.stable}; the result is {run.model}")
