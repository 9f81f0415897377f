"""An ONNX file, shrunk, trained as a PyTorch module that has its parameter names, and written back.

python examples/train_from_onnx.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import onnxmorph
from onnxmorph.converters.torch import export
from onnxmorph.converters.torch_back import from_module, to_module
from onnxmorph.model import save
from onnxmorph.surgery.verify import run_session

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

pixels, labels = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
images = pixels.float().view(-1, 1, 8, 8) / 16


def train(model: nn.Module, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(1200).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    model.eval()


def right(answers: Tensor) -> float:
    return (answers.argmax(1) == labels[1200:]).float().mean().item()


# Some trained network, of which only the ONNX file is left.
original = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(128, 10)),
)
train(original, 3)
export(original, images[:2], out / "model.onnx")

small = onnxmorph.shrink(out / "model.onnx", budget="flops=50%")
module = to_module(small.model)
with torch.no_grad():
    before = right(module.eval()(images[1200:]))
train(module, 2)

trained = from_module(module, small.model)
save(trained, out / "trained.onnx")
(answers,) = run_session(trained)({trained.graph.inputs[0].name: images[1200:].numpy()})
print(f"parameters: {', '.join(name for name, _ in module.named_parameters())}")
print(f"right: {before:.1%} when shrunk, {right(torch.from_numpy(answers)):.1%} after two epochs")
