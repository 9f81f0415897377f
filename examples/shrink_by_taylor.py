"""A trained PyTorch module, cut by what the loss says about its channels, with no further training.

python examples/shrink_by_taylor.py [FOLDER]
"""

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import onnxmorph
from onnxmorph.adapters.torch import gradients
from onnxmorph.converters.torch import export
from onnxmorph.surgery.verify import run_session

out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)

pixels, labels = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
images = pixels.float().view(-1, 1, 8, 8) / 16
model = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(128, 10)),
)
optimizer = torch.optim.Adam(model.parameters(), 3e-3)
for _ in range(5):
    for chosen in torch.randperm(1200).split(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimizer.step()

export(model.eval(), images[:2], out / "model.onnx")
batches = [(images[k : k + 50], labels[k : k + 50]) for k in range(0, 600, 50)]
found = gradients(model, lambda module, batch: nn.functional.cross_entropy(module(batch[0]), batch[1]), batches)
np.savez(out / "gradients.npz", **found)  # for: onnxmorph shrink --by taylor --gradients gradients.npz

for by in ("magnitude", "taylor"):
    small = onnxmorph.shrink(out / "model.onnx", budget="flops=70%", by=by, gradients=found if by == "taylor" else None)
    small.save(out / f"small_{by}.onnx")
    (answers,) = run_session(small.model)({small.model.graph.inputs[0].name: images[1200:].numpy()})
    right = (answers.argmax(1) == labels[1200:].numpy()).mean()
    print(f"by {by}: widths {small.structure.widths.tolist()}, {right:.1%} right without further training")
