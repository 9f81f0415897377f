"""A plain PyTorch loop that ends at half the FLOPs: two lines more than without.

python examples/train_with_budget.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import onnxmorph
from onnxmorph.adapters.torch import Morph, load_weights, resize
from onnxmorph.converters.torch import export

EPOCHS, BATCH = 10, 64
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

morph = Morph(model, images[:2], optimizer, "flops=50%", steps=EPOCHS * (len(images) // BATCH))  # the first line
for epoch in range(EPOCHS):
    for chosen in torch.randperm(len(images))[: len(images) // BATCH * BATCH].split(BATCH):
        loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        morph.step()  # the second line
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {morph.cost['flops']:,} FLOPs, λ {morph.strength:.2g}")
morph.finish()  # does nothing where the budget is met already

# What to do with it: the shrunk ONNX file, and the shrunk module to train further.
model.eval()
structure = morph.structure()
small = onnxmorph.shrink(export(model, images[:2]), structure)
small.save(out / "small.onnx")
structure.save(out / "structure.json")
torch.save(model.state_dict(), out / "weights.pt")
module = resize(model, structure)
load_weights(module, small.model)

with torch.no_grad():
    difference = (module(images) - model(images)).abs().max().item()
print(f"widths: {morph.widths}")
print(f"the small module differs from the large one by {difference:.1e}")
