"""Structures of vision networks: stems that trade space for depth, channel shuffles, gates and norms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nets import IMAGE, conv_bn, head
from structures.registry import module

# ---------------------------------------------------------------- depth and space


def blocks(x: Tensor) -> Tensor:
    """Windows of 2 × 2 into the channels, by reshaping."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def focus(x: Tensor) -> Tensor:
    """Windows of 2 × 2 into the channels, by slices, as YOLOv5 does."""
    return torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)


class Stem(nn.Module):
    """The image goes into the channels, and so do those of a hidden layer."""

    def __init__(self, deepen: object) -> None:
        super().__init__()
        self.deepen = deepen
        self.one, self.two, self.head = conv_bn(12, 6), conv_bn(24, 8), head(8)

    def forward(self, x: Tensor) -> Tensor:
        assert callable(self.deepen)
        return self.head(self.two(self.deepen(self.one(self.deepen(x)))))


@module("stem_by_reshape", IMAGE, widths=[6, 8])
def stem_by_reshape() -> nn.Module:
    return Stem(blocks)


@module("stem_by_slices", IMAGE, widths=[6, 8])
def stem_by_slices() -> nn.Module:
    return Stem(focus)


@module("pixel_unshuffle", IMAGE, widths=[6, 8, 5])
class PixelUnshuffle(nn.Module):
    """Into the channels and back: the 20 channels before the shuffle are 5 windows."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three, self.last = (
            conv_bn(3, 6),
            conv_bn(24, 8),
            nn.Conv2d(8, 20, 1),
            nn.Conv2d(5, 3, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(F.pixel_unshuffle(self.one(x), 2))
        return self.last(F.pixel_shuffle(self.three(x), 2))


@module("patch_merging", IMAGE, widths=[6, 10], removable=0.9)
class PatchMerging(nn.Module):
    """Swin's: windows of 2 × 2 tokens, a norm over all of their channels, a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 6, 2, 2), nn.LayerNorm(24)
        self.reduce, self.fc = nn.Linear(24, 10, bias=False), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.fc(self.reduce(self.norm(x)).mean((1, 2)))


# ---------------------------------------------------------------- channel shuffles


def by_reshape(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def by_stack(x: Tensor) -> Tensor:
    return torch.stack(x.chunk(2, 1), 2).flatten(1, 2)


def by_index(x: Tensor) -> Tensor:
    c = x.shape[1]
    return x.index_select(1, torch.arange(c).view(2, c // 2).t().reshape(-1))


class Shuffled(nn.Module):
    """Grouped convolutions with a shuffle between."""

    def __init__(self, shuffle: object) -> None:
        super().__init__()
        self.shuffle = shuffle
        self.one, self.two, self.three, self.head = conv_bn(3, 8), conv_bn(8, 12, g=2), conv_bn(12, 16, g=2), head(16)

    def forward(self, x: Tensor) -> Tensor:
        assert callable(self.shuffle)
        return self.head(self.three(self.shuffle(self.two(self.one(x)))))


# The first grouped convolution has 2 groups of 4 channels each, the second 2 groups and 8 filters in each.
@module("shuffle_by_reshape", IMAGE, widths=[4, 2, 2, 8])
def shuffle_by_reshape() -> nn.Module:
    return Shuffled(by_reshape)


@module("shuffle_by_index", IMAGE, widths=[4, 2, 2, 8])
def shuffle_by_index() -> nn.Module:
    return Shuffled(by_index)


@module("shuffle_by_stack", IMAGE, widths=[4, 1, 2, 8])
def shuffle_by_stack() -> nn.Module:
    """A stack joins halves that are equally long: neither group of the first convolution goes without the other."""
    return Shuffled(by_stack)


# ---------------------------------------------------------------- gates


@module("se_with_linear_layers", IMAGE, widths=[8, 4, 6, 3])
class LinearExcite(nn.Module):
    """Squeeze and excite by linear layers, over axes that are squeezed, and over axes that are flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv_bn(3, 8), conv_bn(8, 6), head(6)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)
        self.shrink, self.widen = nn.Linear(6, 3), nn.Linear(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        gate = self.up(self.down(x.mean((2, 3))).relu()).sigmoid()
        x = self.two(x * gate[:, :, None, None])
        gate = F.adaptive_avg_pool2d(x, 1).view(-1, 6)
        return self.head(x * self.widen(self.shrink(gate).relu()).sigmoid().view(-1, 6, 1, 1))


@module("cbam_gates", IMAGE, widths=[8, 4, 6], removable=0.85)
class Cbam(nn.Module):
    """Channel attention from the mean and the maximum through one shared MLP, then spatial attention."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv_bn(3, 8), conv_bn(8, 6), head(6)
        self.mlp = nn.Sequential(nn.Conv2d(8, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 8, 1, bias=False))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = x * (self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))).sigmoid()
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.head(self.two(x * self.spatial(maps).sigmoid()))


@module("eca", IMAGE, widths=[6], removable=0.6)
class Eca(nn.Module):
    """A convolution *over* the channels: each gate sees its neighbours, so the positions of all 8 matter."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv_bn(3, 8), conv_bn(8, 6), head(6)
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return self.head(self.two(x * gate[:, :, None, None]))


@module("selective_kernel", IMAGE, widths=[8, 6, 4])
class SelectiveKernel(nn.Module):
    """Two kernels, mixed channel by channel by a softmax over the branches."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.small, self.large = conv_bn(3, 8), conv_bn(8, 6), conv_bn(8, 6, 5)
        self.squeeze, self.excite, self.head = conv_bn(6, 4, 1), nn.Conv2d(4, 12, 1), head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        maps = torch.stack([self.small(x), self.large(x)], 1)
        gate = self.excite(self.squeeze(maps.sum(1).mean((2, 3), keepdim=True)))
        gate = gate.view(-1, 2, 6, 1, 1).softmax(1)
        return self.head((maps * gate).sum(1))


@module("res2net", IMAGE, widths=[8, 3, 3, 3, 3, 3])
class Res2Net(nn.Module):
    """A block of four scales: each part passes the part before on, and all meet again in a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = conv_bn(3, 8), conv_bn(8, 12, 1)
        self.parts = nn.ModuleList(conv_bn(3, 3) for _ in range(3))
        self.last, self.head = conv_bn(12, 8, 1, act=nn.Identity()), head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        done, *parts = self.first(x).chunk(4, 1)
        found = [done]
        for i, (part, conv) in enumerate(zip(parts, self.parts, strict=True)):
            found.append(conv(part + found[-1] if i else part))
        return self.head((x + self.last(torch.cat(found, 1))).relu())


@module("response_norm", IMAGE, widths=[8, 24])
class ResponseNorm(nn.Module):
    """A block of ConvNeXt v2: global response normalisation divides by the mean over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 8, 2, 2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(24, 8)
        self.weight, self.bias = nn.Parameter(torch.rand(24)), nn.Parameter(torch.rand(24))
        self.head = head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.gelu(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
        size = y.norm(dim=(1, 2), keepdim=True)
        y = y + self.weight * (y * size / (size.mean(-1, keepdim=True) + 1e-6)) + self.bias
        return self.head(x + self.down(y).permute(0, 3, 1, 2))
