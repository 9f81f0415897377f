"""A small residual network whose graph is not trivial: depthwise, grouped and concatenated convolutions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

GROUPS = 4


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> Iterator[nn.Module]:
    """A convolution and its BatchNorm; the norm's shift is the bias."""
    yield nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    yield nn.BatchNorm2d(outputs)


class Residual(nn.Module):
    """x + body(x), then ReLU."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, h, w] -> [n, width, h, w]``."""
        return torch.relu(x + self.body(x))


class Towers(nn.Module):
    """Two convolutions side by side, their channels concatenated."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(*conv_norm(inputs, outputs // 2, 1), nn.ReLU())
        self.wide = nn.Sequential(*conv_norm(inputs, outputs - outputs // 2, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """``[n, inputs, h, w] -> [n, outputs, h, w]``."""
        return torch.cat([self.narrow(x), self.wide(x)], 1)


class Average(nn.Module):
    """The mean over the image."""

    def forward(self, x: Tensor) -> Tensor:
        """``[n, width, h, w] -> [n, width]``."""
        return x.mean((2, 3))


def plain(width: int) -> Residual:
    """The residual block of ResNet (He et al. 2015)."""
    return Residual(*conv_norm(width, width, 3), nn.ReLU(), *conv_norm(width, width, 3))


def grouped(width: int) -> Residual:
    """The residual block of ResNeXt (Xie et al. 2016): a grouped convolution between two pointwise ones."""
    middle = conv_norm(width, width, 3, groups=GROUPS)
    return Residual(*conv_norm(width, width, 1), nn.ReLU(), *middle, nn.ReLU(), *conv_norm(width, width, 1))


def separable(inputs: int, outputs: int) -> nn.Sequential:
    """Half the resolution by a depthwise convolution, new channels by a pointwise one (Howard et al. 2017)."""
    depthwise = conv_norm(inputs, inputs, 3, stride=2, groups=inputs)
    return nn.Sequential(*depthwise, nn.ReLU(), *conv_norm(inputs, outputs, 1), nn.ReLU())


def network(channels: int, widths: tuple[int, ...], depth: int, classes: int) -> nn.Sequential:
    """The demo's network, ``[n, channels, h, w] -> [n, classes]``.

    A stem, then stages of `depth` residual blocks, each stage at half the resolution of the one before; the
    last one ends in a grouped block and two towers.
    """
    first, last = widths[0], widths[-1]
    layers: list[nn.Module] = [nn.Sequential(*conv_norm(channels, first, 3), nn.ReLU())]
    for before, width in zip((0, *widths), widths, strict=False):
        if before:
            layers.append(separable(before, width))
        layers.extend(plain(width) for _ in range(depth))
    return nn.Sequential(*layers, grouped(last), Towers(last, last), Average(), nn.Linear(last, classes))
