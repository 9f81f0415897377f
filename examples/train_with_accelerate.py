"""Hugging Face Accelerate: accumulated batches, clipped gradients, and half the FLOPs at the end.

accelerate launch examples/train_with_accelerate.py [FOLDER], or python examples/train_with_accelerate.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from onnxmorph.adapters.torch import Morph, resize
from onnxmorph.adapters.torch_log import CsvLog

EPOCHS, BATCH, ACCUMULATE = 4, 32, 2
out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/examples")
out.mkdir(parents=True, exist_ok=True)
set_seed(0)

pixels, labels = (torch.from_numpy(a) for a in load_digits(return_X_y=True))
images = pixels.float().view(-1, 1, 8, 8) / 16
loader = DataLoader(TensorDataset(images, labels), BATCH, shuffle=True)
model = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(128, 10)),
)
optimizer = torch.optim.Adam(model.parameters(), 3e-3)

accelerator = Accelerator(gradient_accumulation_steps=ACCUMULATE)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
steps = EPOCHS * (len(loader) // ACCUMULATE)
morph = Morph(model, images[:2].to(accelerator.device), optimizer, "flops=50%", steps=steps)
log = CsvLog(out / "widths.csv")
for epoch in range(EPOCHS):
    for x, y in loader:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(x), y)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            morph.step()  # passes over the batches between two steps, as Accelerate's optimizer does
            log.write(morph)
    accelerator.print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {morph.cost['flops']:,} FLOPs")
morph.finish()  # does nothing where the budget is met already

if accelerator.is_main_process:
    morph.structure().save(out / "structure.json")
    torch.save(resize(model, morph.structure()).state_dict(), out / "small.pt")
