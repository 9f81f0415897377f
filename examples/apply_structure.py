"""Apply structure.json to a state_dict with nothing but array indexing: no onnxmorph, any framework.

python examples/apply_structure.py STRUCTURE.json WEIGHTS.pt SMALL.pt
"""

import json
import sys

import numpy as np
import torch

structure_file, weights_file, small_file = sys.argv[1:]
with open(structure_file, encoding="utf-8") as file:
    parameters = json.load(file)["parameters"]
weights = torch.load(weights_file, weights_only=True)

small = {}
for name, tensor in weights.items():
    array = tensor.numpy()
    for axis, kept in parameters.get(name, {}).items():
        array = np.take(array, kept, int(axis))
    small[name] = torch.from_numpy(np.array(array))
    print(f"{name}: {tuple(tensor.shape)} -> {array.shape}")
torch.save(small, small_file)
