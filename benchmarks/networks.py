"""ResNets, MobileNetV2 and ViTs as the tests build them, in PyTorch and as ONNX files."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from full_nets import VisionTransformer, resnet18, resnet50, vit_b_16
from nets import conv_bn, head, inverted
from onnxmorph.converters.torch import export

IMAGE = torch.zeros(1, 3, 224, 224)
MOBILE = ((6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2() -> nn.Sequential:
    """The stages of arXiv 1801.04381, table 2: expansion, width, blocks, stride; 3,505,960 parameters."""
    layers, width = [conv_bn(3, 32, 3, 2, act=nn.ReLU6()), inverted(32, 32, 16)], 16
    for expand, out, times, stride in MOBILE:
        for n in range(times):
            layers.append(inverted(width, expand * width, out, stride if n == 0 else 1))
            width = out
    return nn.Sequential(*layers, conv_bn(width, 1280, 1, act=nn.ReLU6()), head(1280, 1000))


def vit_s_16() -> VisionTransformer:
    """ViT-S/16 of six layers, 11,403,880 parameters."""
    return VisionTransformer(size=224, patch=16, depth=6, heads=6, width=384, hidden=1536)


BUILDERS = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "vit_s_16": vit_s_16,
    "vit_b_16": vit_b_16,
}


def network(name: str) -> nn.Module:
    return BUILDERS[name]()


def file(name: str, folder: Path) -> Path:
    """The network's ONNX file, exported on first use."""
    path = folder / f"{name}.onnx"
    if not path.exists():
        export(network(name).eval(), (IMAGE,), path)
    return path
