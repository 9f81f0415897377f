"""The networks of the comparison, in their CIFAR forms."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from full_nets import VisionTransformer
from nets import basic_block, conv_bn, head, inverted


def resnet(blocks: int, widths: tuple[int, int, int] = (16, 32, 64), colours: int = 3) -> nn.Module:
    """ResNet of 6 · blocks + 2 layers (arXiv 1512.03385, section 4.2), with projections as shortcuts."""
    layers, width = [conv_bn(colours, widths[0])], widths[0]
    for stage, out in enumerate(widths):
        for n in range(blocks):
            layers.append(basic_block(width, out, 2 if stage and not n else 1))
            width = out
    return nn.Sequential(*layers, head(width))


def vgg16_bn() -> nn.Module:
    """The convolutions of VGG-16 with BatchNorm, one linear layer."""
    layers, width = [], 3
    for stage, (out, times) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        layers += [nn.MaxPool2d(2)] if stage else []
        for _ in range(times):
            layers.append(conv_bn(width, out))
            width = out
    return nn.Sequential(*layers, head(width))


def mobilenet_v2(scale: float = 1.0) -> nn.Module:
    """ArXiv 1801.04381 with the strides that small images need: 1 in the stem and in the second stage."""

    def of(width: int) -> int:
        return max(8, int(width * scale) // 8 * 8)

    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    layers, width = [conv_bn(3, of(32), act=nn.ReLU6())], of(32)
    for expand, out, times, stride in stages:
        for n in range(times):
            layers.append(inverted(width, expand * width, of(out), stride if n == 0 else 1))
            width = of(out)
    return nn.Sequential(*layers, conv_bn(width, of(1280), 1, act=nn.ReLU6()), head(of(1280)))


class Dense(nn.Module):
    """A layer of a dense block (arXiv 1608.06993): what it makes is put beside what it read."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(self.norm(x).relu())], 1)


def densenet(growth: int = 12, layers: int = 4) -> nn.Module:
    """Three dense blocks with transitions that halve width and size."""
    parts, width = [nn.Conv2d(3, 2 * growth, 3, 1, 1, bias=False)], 2 * growth
    for block in range(3):
        for _ in range(layers):
            parts.append(Dense(width, growth))
            width += growth
        if block < 2:
            parts += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return nn.Sequential(*parts, nn.BatchNorm2d(width), nn.ReLU(), head(width))


def vit(size: int = 32) -> nn.Module:
    """A small ViT over 64 patches (arXiv 2010.11929)."""
    module = VisionTransformer(size, size // 8, depth=6, heads=4, width=128, hidden=256)
    module.heads = nn.Linear(128, 10)
    return module


NETWORKS = {
    "resnet8": lambda colours=3: resnet(1, colours=colours),
    "resnet20": lambda colours=3: resnet(3, colours=colours),
    "resnet56": lambda colours=3: resnet(9, colours=colours),
    "vgg16_bn": lambda colours=3: vgg16_bn(),
    "mobilenet_v2": lambda colours=3: mobilenet_v2(),
    "mobilenet_v2_half": lambda colours=3: mobilenet_v2(0.5),
    "densenet": lambda colours=3: densenet(),
    "vit": lambda colours=3: vit(),
    "vit_16": lambda colours=3: vit(16),
}
