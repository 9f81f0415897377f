"""Small networks, each in the style of a real architecture, to try every part of the product on.

``NETS`` maps a name to a factory that returns the network in eval mode and its example inputs.
Construction is seeded; every affine parameter and running statistic is random, so that no scale is
1, no shift is 0, and a channel that is lost or swapped changes the output.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Example = tuple[nn.Module, tuple[Tensor, ...]]
NETS: dict[str, Callable[[], Example]] = {}

IMAGE = (2, 3, 16, 16)


def randomise(model: nn.Module) -> None:
    """Draw weights that carry the signal through, and norms and biases that are nowhere 0 or 1, in place."""
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            leaf = name.rsplit(".", 1)[-1]
            if leaf == "running_var" or (leaf == "weight" and tensor.ndim == 1):
                tensor.uniform_(0.5, 1.5)
            elif leaf == "running_mean" or leaf.endswith("bias"):
                tensor.uniform_(-0.3, 0.3)
            elif leaf.endswith("weight"):
                tensor.normal_(std=math.sqrt(2 / tensor[0].numel()))


def net(
    name: str, *shapes: Sequence[int], registry: dict[str, Callable[[], Example]] = NETS
) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Register the decorated class or factory under ``name``; ``shapes`` are those of its example inputs."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        def example() -> Example:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(name.encode()))
                model = build()
                randomise(model)
                return model.eval(), tuple(map(draw, shapes))

        if name in registry:
            raise ValueError(f"two networks are called {name!r}")
        registry[name] = example
        return build

    return register


def draw(shape: Sequence[int]) -> Tensor:
    """Noise around a level of each sample's and channel's own, so that pooled outputs differ by sample."""
    return torch.randn(*shape) + torch.randn(*shape[:2], *[1] * (len(shape) - 2))


def conv_bn(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: nn.Module | None = None) -> nn.Sequential:
    """Convolution without bias, BatchNorm, activation (ReLU unless told)."""
    return nn.Sequential(
        nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False),
        nn.BatchNorm2d(o),
        nn.ReLU() if act is None else act,
    )


def head(channels: int, classes: int = 10) -> nn.Sequential:
    """Global average pooling and a classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Residual(nn.Module):
    """``act(body(x) + skip(x))``."""

    def __init__(self, body: nn.Module, skip: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.skip, self.act = body, skip or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.skip(x))


class SqueezeExcite(nn.Module):
    """Gate every channel by the pooled input."""

    def __init__(self, c: int, hidden: int, act: type[nn.Module] = nn.ReLU, gate: type[nn.Module] = nn.Sigmoid) -> None:
        super().__init__()
        self.fc1, self.fc2, self.act, self.gate = (
            nn.Conv2d(c, hidden, 1),
            nn.Conv2d(hidden, c, 1),
            act(),
            gate(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.fc1(x.mean((2, 3), keepdim=True)))))


# ---------------------------------------------------------------- convolutional classifiers


def basic_block(i: int, o: int, s: int = 1) -> Residual:
    skip = conv_bn(i, o, 1, s, act=nn.Identity()) if s > 1 or i != o else None
    return Residual(nn.Sequential(conv_bn(i, o, 3, s), conv_bn(o, o, act=nn.Identity())), skip, nn.ReLU())


def bottleneck(i: int, mid: int, o: int, s: int = 1, g: int = 1) -> Residual:
    body = nn.Sequential(conv_bn(i, mid, 1), conv_bn(mid, mid, 3, s, g), conv_bn(mid, o, 1, act=nn.Identity()))
    skip = conv_bn(i, o, 1, s, act=nn.Identity()) if s > 1 or i != o else None
    return Residual(body, skip, nn.ReLU())


@net("resnet", IMAGE)
def resnet() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8, 3, 2),
        nn.MaxPool2d(3, 2, 1),
        basic_block(8, 8),
        basic_block(8, 12, 2),
        basic_block(12, 12),
        head(12),
    )


@net("resnet_bottleneck", IMAGE)
def resnet_bottleneck() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), bottleneck(8, 4, 16), bottleneck(16, 4, 16), bottleneck(16, 6, 20, 2), head(20))


@net("resnext", IMAGE)
def resnext() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8),
        bottleneck(8, 8, 16, g=4),
        bottleneck(16, 8, 16, g=4),
        bottleneck(16, 12, 24, 2, g=3),
        head(24),
    )


@net("vgg_bn", IMAGE)
def vgg_bn() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8), nn.MaxPool2d(2), conv_bn(8, 12), conv_bn(12, 12), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12 * 4 * 4, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 10),
    )  # fmt: skip


class Tower(nn.Module):
    """Parallel branches, concatenated over channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


@net("inception", IMAGE)
def inception() -> nn.Module:
    def mixed(i: int, a: int, b: int, c: int, d: int) -> Tower:
        return Tower(
            conv_bn(i, a, 1),
            nn.Sequential(conv_bn(i, b - 1, 1), conv_bn(b - 1, b, 3)),
            nn.Sequential(conv_bn(i, c, 1), conv_bn(c, c, 3), conv_bn(c, c, 3)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_bn(i, d, 1)),
        )

    return nn.Sequential(conv_bn(3, 8, 3, 2), mixed(8, 4, 5, 6, 3), mixed(18, 6, 4, 5, 5), head(20))


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, convolution; the result is appended to the input."""

    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, 2 * growth, 1, bias=False)
        self.norm2, self.conv2 = (
            nn.BatchNorm2d(2 * growth),
            nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, new], 1)


@net("densenet", IMAGE)
def densenet() -> nn.Module:
    transition = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1, bias=False), nn.AvgPool2d(2))
    return nn.Sequential(
        conv_bn(3, 8, 3, 2), DenseLayer(8, 4), DenseLayer(12, 4), transition, DenseLayer(8, 4),
        DenseLayer(12, 4), nn.BatchNorm2d(16), nn.ReLU(), head(16),
    )  # fmt: skip


def inverted(
    i: int, mid: int, o: int, s: int = 1, act: type[nn.Module] = nn.ReLU6, se: nn.Module | None = None
) -> nn.Module:
    body = nn.Sequential(
        conv_bn(i, mid, 1, act=act()), conv_bn(mid, mid, 3, s, mid, act()), se or nn.Identity(),
        conv_bn(mid, o, 1, act=nn.Identity()),
    )  # fmt: skip
    return Residual(body) if s == 1 and i == o else body


@net("mobilenet_v2", IMAGE)
def mobilenet_v2() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8, 3, 2, act=nn.ReLU6()),
        inverted(8, 16, 8),
        inverted(8, 16, 12, 2),
        inverted(12, 24, 12),
        head(12),
    )


@net("mobilenet_v3", IMAGE)
def mobilenet_v3() -> nn.Module:
    def block(i: int, mid: int, o: int, s: int = 1) -> nn.Module:
        return inverted(i, mid, o, s, nn.Hardswish, SqueezeExcite(mid, 6, gate=nn.Hardsigmoid))

    return nn.Sequential(
        conv_bn(3, 8, 3, 2, act=nn.Hardswish()), block(8, 16, 8), block(8, 18, 12, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 16), nn.Hardswish(), nn.Linear(16, 10),
    )  # fmt: skip


@net("efficientnet", IMAGE)
def efficientnet() -> nn.Module:
    def block(i: int, mid: int, o: int, s: int = 1) -> nn.Module:
        return inverted(i, mid, o, s, nn.SiLU, SqueezeExcite(mid, 4, nn.SiLU))

    return nn.Sequential(conv_bn(3, 8, 3, 2, act=nn.SiLU()), block(8, 16, 8), block(8, 18, 12, 2), head(12))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, groups, c // groups, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleBlock(nn.Module):
    """ShuffleNet v2's unit: half of the channels pass, the halves are shuffled."""

    def __init__(self, c: int, s: int = 1) -> None:
        super().__init__()
        half = c // 2
        i = half if s == 1 else c
        self.s = s
        self.right = nn.Sequential(
            conv_bn(i, half, 1), conv_bn(half, half, 3, s, half, nn.Identity()), conv_bn(half, half, 1)
        )
        self.left = (
            nn.Sequential(conv_bn(c, c, 3, s, c, nn.Identity()), conv_bn(c, half, 1)) if s > 1 else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1) if self.s == 1 else (x, x)
        return channel_shuffle(torch.cat([self.left(left), self.right(right)], 1), 2)


@net("shufflenet_v2", IMAGE)
def shufflenet_v2() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 12), ShuffleBlock(12, 2), ShuffleBlock(12), ShuffleBlock(12), conv_bn(12, 16, 1), head(16)
    )


@net("unet", IMAGE)
class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = conv_bn(3, 6), conv_bn(6, 10), conv_bn(10, 14)
        self.rise2, self.up2 = nn.ConvTranspose2d(14, 10, 2, 2), conv_bn(20, 10)
        self.rise1, self.up1 = nn.ConvTranspose2d(10, 5, 2, 2), conv_bn(11, 6)
        self.out = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        y = self.middle(F.max_pool2d(b, 2))
        y = self.up2(torch.cat([self.rise2(y), b], 1))
        return self.out(self.up1(torch.cat([self.rise1(y), a], 1)))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm and MLP over the last axis, layer scale, residual."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.dwconv, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c, eps=1e-6)
        self.fc1, self.fc2 = nn.Linear(c, 3 * c), nn.Linear(3 * c, c)
        self.scale = nn.Parameter(torch.rand(c, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        return x + self.scale * self.fc2(F.gelu(self.fc1(y))).permute(0, 3, 1, 2)


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of an image."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@net("convnext", IMAGE)
def convnext() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), LayerNorm2d(8), ConvNeXtBlock(8), LayerNorm2d(8), nn.Conv2d(8, 12, 2, 2),
        ConvNeXtBlock(12), nn.AdaptiveAvgPool2d(1), LayerNorm2d(12), nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip


# ---------------------------------------------------------------- transformers


class Attention(nn.Module):
    """Multi-head self-attention with separate projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # b n (h d) -> b h n d

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class FusedAttention(nn.Module):
    """Multi-head self-attention, one projection for queries, keys and values, as in timm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class TorchAttention(nn.Module):
    """PyTorch's own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class ViT(nn.Module):
    """Patches, a class token, positions, pre-norm encoder blocks."""

    def __init__(
        self, attention: Callable[[int, int], nn.Module], width: int = 12, heads: int = 3, depth: int = 2
    ) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.token, self.position = (
            nn.Parameter(torch.randn(1, 1, width)),
            nn.Parameter(torch.randn(1, 5, width)),
        )
        self.blocks = nn.Sequential()
        for _ in range(depth):
            mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width))
            self.blocks.append(Residual(nn.Sequential(nn.LayerNorm(width), attention(width, heads))))
            self.blocks.append(Residual(mlp))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


@net("vit", IMAGE)
def vit() -> nn.Module:
    return ViT(Attention)


@net("vit_fused", IMAGE)
def vit_fused() -> nn.Module:
    return ViT(FusedAttention)


@net("vit_torch", IMAGE)
def vit_torch() -> nn.Module:
    return ViT(TorchAttention)


# ---------------------------------------------------------------- single traits


@net("depthwise_multiplier", IMAGE)
def depthwise_multiplier() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), conv_bn(8, 16, 3, 1, 8), conv_bn(16, 12, 1), head(12))


@net("groupnorm", IMAGE)
def groupnorm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1),
        nn.GroupNorm(3, 12),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3),
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        head(8),
    )


@net("instancenorm", IMAGE)
def instancenorm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 6, 3),
        nn.InstanceNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10),
    )  # fmt: skip


@net("conv1d", (2, 4, 32))
def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 8, 5, 2, 2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3, groups=4), nn.BatchNorm1d(12), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip


@net("conv3d", (2, 3, 6, 8, 8))
def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 6, 3, 1, 1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 8, 3, 1, 1),
        nn.BatchNorm3d(8), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


@net("mlp", (2, 16))
def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 5)
    )


@net("transposed_grouped", IMAGE)
def transposed_grouped() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8, 3, 2),
        nn.ConvTranspose2d(8, 12, 4, 2, 1, groups=4, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 2, 1),
    )


@net("pixel_shuffle", IMAGE)
def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        conv_bn(3, 8), nn.Conv2d(8, 6 * 4, 3, 1, 1), nn.PixelShuffle(2), nn.ReLU(), nn.Conv2d(6, 3, 3, 1, 1)
    )


class PaddedShortcut(nn.Module):
    """The parameter-free shortcut of the CIFAR ResNets: subsample, pad channels with zeros."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))


@net("padded_shortcut", IMAGE)
def padded_shortcut() -> nn.Module:
    body = nn.Sequential(conv_bn(8, 12, 3, 2), conv_bn(12, 12, act=nn.Identity()))
    return nn.Sequential(conv_bn(3, 8), Residual(body, PaddedShortcut(2), nn.ReLU()), basic_block(12, 12), head(12))


@net("split_uneven", IMAGE)
class SplitUneven(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = conv_bn(3, 12), conv_bn(5, 6), conv_bn(4, 6), head(9)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.stem(x).split([5, 4, 3], 1)
        return self.head(torch.cat([c, self.a(a) + self.b(b)], 1))


@net("sliced_halves", IMAGE)
class SlicedHalves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.head = conv_bn(3, 12), conv_bn(6, 6), head(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(self.a(y[:, :6]) * torch.sigmoid(y[:, 6:]) + y[:, ::2])


@net("tied_linear", (2, 12))
class TiedLinear(nn.Module):
    """The decoder is the encoder's weight, under a second name; the output stage is it transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.encoder, self.decoder = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.decoder.weight = self.encoder.weight
        self.out = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.decoder(F.relu(self.encoder(F.relu(self.inner(x))))))
        return self.out(F.relu(F.linear(y, self.encoder.weight.T)))


@net("gather_constant", IMAGE)
class GatherConstant(nn.Module):
    """Channels picked by a constant index, one of them twice; the index is a buffer."""

    index: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = conv_bn(3, 8), conv_bn(5, 6), head(6)
        self.register_buffer("index", torch.tensor([6, 1, 1, 4, 0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x).index_select(1, self.index)))


@net("glu", IMAGE)
def glu() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.GLU(1), nn.Conv2d(8, 12, 3), nn.GLU(1), head(6)
    )


@net("squeeze_excite", IMAGE)
def squeeze_excite() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), SqueezeExcite(8, 5), conv_bn(8, 12), SqueezeExcite(12, 6, nn.SiLU), head(12))


@net("channel_softmax", IMAGE)
def channel_softmax() -> nn.Module:
    return nn.Sequential(conv_bn(3, 8), nn.Conv2d(8, 12, 1), nn.Softmax(1), conv_bn(12, 6), head(6))


@net("shared_twice", IMAGE)
class SharedTwice(nn.Module):
    """One convolution and norm called twice, with one parameter of its own in between."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = conv_bn(3, 8), conv_bn(8, 8), head(8)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shared(self.shared(self.stem(x)) * self.scale))


@net("two_inputs", IMAGE, (2, 6))
class TwoInputs(nn.Module):
    """An image and a vector that modulates its channels (FiLM)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.film, self.body, self.head = conv_bn(3, 8), nn.Linear(6, 16), conv_bn(8, 12), head(12)

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.film(vector)[:, :, None, None].chunk(2, 1)
        return self.head(self.body(self.stem(image) * scale + shift))
