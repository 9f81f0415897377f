"""ResNet-18, ResNet-50 and ViT-B/16 as the tests build them, in PyTorch and as ONNX files."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from full_nets import resnet18, resnet50, vit_b_16
from onnxmorph.converters.torch import export

IMAGE = torch.zeros(1, 3, 224, 224)
BUILDERS = {"resnet18": resnet18, "resnet50": resnet50, "vit_b_16": vit_b_16}


def network(name: str) -> nn.Module:
    return BUILDERS[name]()


def file(name: str, folder: Path) -> Path:
    """The network's ONNX file, exported on first use."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        export(network(name).eval(), (IMAGE,), path)
    return path
