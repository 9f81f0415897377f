"""Whole networks of vision: kernels that the graph computes, signals and videos, several inputs, levels and outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets import IMAGE, SqueezeExcite, conv_bn, head
from structures.registry import module

# ---------------------------------------------------------------- kernels that the graph computes


class StandardConv(nn.Conv2d):
    """A convolution whose kernels are brought to mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        mean, variance = w.mean((1, 2, 3), keepdim=True), w.var((1, 2, 3), keepdim=True, unbiased=False)
        return F.conv2d(x, (w - mean) / (variance + 1e-5).sqrt(), self.bias, padding=self.padding)


@module("weight_standardised", IMAGE, widths=[8, 6])
def weight_standardised() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), nn.ReLU(), StandardConv(8, 6, 3, padding=1), nn.ReLU(), head(6)]
    return nn.Sequential(*layers)


@module("mixed_kernels", IMAGE, widths=[8, 3, 6])
class MixedKernels(nn.Module):
    """CondConv for one image: three kernels, mixed by a routing that the image decides."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.route, self.head = conv_bn(3, 8), nn.Linear(8, 3), head(6)
        self.experts = nn.Parameter(torch.randn(3, 6, 8, 3, 3) / 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        share = self.route(x.mean((0, 2, 3))).sigmoid()
        kernel = (share.view(3, 1, 1, 1, 1) * self.experts).sum(0)
        return self.head(F.conv2d(x, kernel, padding=1).relu())


# ---------------------------------------------------------------- shapes of networks


@module("signal_unet", (2, 2, 16), widths=[6, 8, 6])
class SignalUnet(nn.Module):
    """One axis: down, up by a transposed convolution, and the skip beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.down = nn.Conv1d(2, 6, 3, padding=1), nn.Conv1d(6, 8, 4, 2, 1)
        self.up, self.last = nn.ConvTranspose1d(8, 6, 4, 2, 1), nn.Conv1d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).relu()
        return self.last(torch.cat([x, self.up(self.down(x).relu()).relu()], 1))


@module("video", (2, 3, 4, 8, 8), widths=[8, 5, 6])
class Video(nn.Module):
    """Three axes: space and time apart, inside a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(3, 8, 3, padding=1)
        self.space, self.time = (
            nn.Conv3d(8, 5, (1, 3, 3), padding=(0, 1, 1)),
            nn.Conv3d(5, 6, (3, 1, 1), padding=(1, 0, 0)),
        )
        self.back, self.fc = nn.Conv3d(6, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.back(self.time(self.space(x).relu()).relu())
        return self.fc(x.mean((2, 3, 4)))


@module("grouped_decoder", IMAGE, widths=[4, 2, 3, 5])
class GroupedDecoder(nn.Module):
    """A transposed convolution in 4 groups of 2 channels that makes 3 of each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.up, self.two = conv_bn(3, 8, s=2), nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4), conv_bn(12, 5)
        self.last = nn.Conv2d(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.two(self.up(self.one(x)).relu()))


@module("called_three_times", IMAGE, widths=[8, 5])
class CalledThreeTimes(nn.Module):
    """One residual block, run as a recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_bn(3, 8), head(8)
        self.block = nn.Sequential(nn.Conv2d(8, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 8, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = x + self.block(x)
        return self.head(x)


@module("two_streams", IMAGE, (2, 2, 16, 16), widths=[6, 8, 7, 9], removable=0.9)
class TwoStreams(nn.Module):
    """Two inputs, each its own stream, a connection between them; three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.move = conv_bn(3, 6), conv_bn(2, 8)
        self.cross, self.look2, self.move2 = nn.Conv2d(8, 6, 1), conv_bn(6, 7), conv_bn(8, 9)
        self.heads = nn.ModuleList([head(7, 4), head(9, 4), nn.Conv2d(16, 2, 1)])

    def forward(self, x: Tensor, flow: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        look, move = self.look(x), self.move(flow)
        look, move = self.look2(look * self.cross(move).sigmoid()), self.move2(move)
        return self.heads[0](look), self.heads[1](move), self.heads[2](torch.cat([look, move], 1))


@module("detector", IMAGE, widths=[6, 8, 5, 7])
class Detector(nn.Module):
    """Two levels of a pyramid, one head for both, boxes decoded from centre, size and score."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv_bn(3, 6, s=2), conv_bn(6, 8, s=2)
        self.side, self.top, self.shared = nn.Conv2d(6, 5, 1), nn.Conv2d(8, 5, 1), conv_bn(5, 7)
        self.predict = nn.Conv2d(7, 2 * 6, 1)

    def level(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        raw = self.predict(self.shared(x)).view(n, 2, 6, h, w).permute(0, 1, 3, 4, 2)
        xy, wh, score = raw.split((2, 2, 2), 4)
        xy, wh = xy.sigmoid() * 2 - 0.5, (wh.sigmoid() * 2) ** 2
        return torch.cat([xy - wh / 2, xy + wh / 2, score.sigmoid()], 4).reshape(n, -1, 6)

    def forward(self, x: Tensor) -> Tensor:
        low = self.one(x)
        high = self.top(self.two(low))
        low = self.side(low) + F.interpolate(high, scale_factor=2.0, mode="nearest")
        return torch.cat([self.level(low), self.level(high)], 1)


@module("inverted_residual", IMAGE, widths=[8, 4, 6, 12])
class Inverted(nn.Module):
    """An inverted residual with squeeze-excite between its depthwise convolution and its projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = conv_bn(3, 8), conv_bn(8, 12, 1)
        self.depthwise, self.gate = conv_bn(12, 12, g=12), SqueezeExcite(12, 4)
        self.down, self.last, self.head = conv_bn(12, 8, 1, act=nn.Identity()), conv_bn(8, 6, 1), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.last(x + self.down(self.gate(self.depthwise(self.up(x))))))
