"""Six kinds of networks that people train, small, each with real data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import conv_bn, head, inverted
from nets import ConvNeXtBlock, LayerNorm2d, Residual, basic_block
from onnxmorph.adapters.demo.images import read_images
from onnxmorph.adapters.demo.recipe import RECIPES

DOCS = Path(__file__).parents[1] / "docs"
CIFAR, SPEECH = "cifar10_jpeg.npz", "fsdd_logmel.npz"
IMAGES = (6000, 2000)  # to train and to test on
WINDOW, STRIDE = 64, 16  # characters
OTHER = 127  # the code of what is not ASCII


@dataclass(frozen=True)
class Data:
    """Inputs, and the class of every sample, ``[n]``, or of every step of it, ``[n, steps]``."""

    name: str
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1


@dataclass(frozen=True)
class Task:
    """A network, how it is trained, and on what."""

    name: str
    build: Callable[[Data], nn.Module]
    data: Callable[[Path | None, Path], Data]
    optimizer: str
    rate: float
    batch: int

    def optimize(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer == "SGD":
            return torch.optim.SGD(parameters, self.rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
        return torch.optim.AdamW(parameters, self.rate)


# ---------------------------------------------------------------- data


def _digits(cache: Path) -> Data:
    """Handwritten digits, 8×8, which come with scikit-learn."""
    found = read_images(replace(RECIPES["digits"], train_images=1200, test_images=597), None, cache)
    return Data("digits", *map(torch.from_numpy, (found.train, found.train_labels, found.test, found.test_labels)))


def images(folder: Path | None, cache: Path) -> Data:
    """CIFAR-10 at half its size, or digits at twice theirs, ``[n, 3, 16, 16]``."""
    if folder is None or not (folder / CIFAR).exists():
        d = _digits(cache)
        x, test_x = (F.interpolate(x, (16, 16), mode="bilinear").expand(-1, 3, -1, -1) for x in (d.x, d.test_x))
        return replace(d, x=x, test_x=test_x)
    recipe = replace(RECIPES["cifar10"], train_images=IMAGES[0], test_images=IMAGES[1])
    found = read_images(recipe, folder / CIFAR, cache)
    x, test_x = (F.avg_pool2d(torch.from_numpy(x), 2) for x in (found.train, found.test))
    return Data("cifar10", x, torch.from_numpy(found.train_labels), test_x, torch.from_numpy(found.test_labels))


def text(folder: Path | None, cache: Path) -> Data:
    """The project's own documents, character by character; the last tenth is to test on."""
    written = "".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md")))
    codes = np.minimum(np.array([*map(ord, written)]), OTHER)
    pieces = torch.from_numpy(codes).unfold(0, WINDOW + 1, STRIDE)
    last = len(pieces) * 9 // 10
    train, test = pieces[:last], pieces[last + WINDOW // STRIDE + 1 :: WINDOW // STRIDE]
    return Data("docs", train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:])


def speech(folder: Path | None, cache: Path) -> Data:
    """Spoken digits, every second frame, ``[n, 49, 40]``; or the rows of written ones, ``[n, 8, 8]``."""
    if folder is None or not (folder / SPEECH).exists():
        d = _digits(cache)
        x, test_x = d.x[:, 0], d.test_x[:, 0]
        return Data(d.name, x, d.y[:, None].expand(-1, 8), test_x, d.test_y[:, None].expand(-1, 8))
    with np.load(folder / SPEECH, allow_pickle=False) as found:
        x, test_x = (torch.from_numpy(found[f"x_{part}"][:, ::2]).float() / 64 - 2 for part in ("train", "test"))
        y, test_y = (torch.from_numpy(found[f"y_{part}"]).long() for part in ("train", "test"))
    return Data("speech", x, y[:, None].expand(x.shape[:2]), test_x, test_y[:, None].expand(test_x.shape[:2]))


# ---------------------------------------------------------------- networks


def resnet(data: Data) -> nn.Module:
    stages = (basic_block(32, 32), basic_block(32, 32), basic_block(32, 64, 2), basic_block(64, 64))
    return nn.Sequential(conv_bn(3, 32), *stages, basic_block(64, 128, 2), basic_block(128, 128), head(128))


def mobilenet(data: Data) -> nn.Module:
    blocks = (inverted(32, 32, 16), inverted(16, 96, 24), inverted(24, 144, 24), inverted(24, 144, 40, 2))
    more = (inverted(40, 240, 40), inverted(40, 240, 64, 2), inverted(64, 384, 64))
    last = conv_bn(64, 256, 1, act=nn.ReLU6())
    return nn.Sequential(conv_bn(3, 32, act=nn.ReLU6()), *blocks, *more, last, head(256))


def convnext(data: Data) -> nn.Module:
    stem, down = nn.Conv2d(3, 64, 2, 2), nn.Conv2d(64, 128, 2, 2)
    first, second = (nn.Sequential(*(ConvNeXtBlock(c) for _ in range(3))) for c in (64, 128))
    last = (nn.AdaptiveAvgPool2d(1), LayerNorm2d(128), nn.Flatten(), nn.Linear(128, 10))
    return nn.Sequential(stem, LayerNorm2d(64), first, LayerNorm2d(64), down, second, *last)


class Attention(nn.Module):
    """Multi-head self-attention; only steps before it are seen where it is causal."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.scale, self.causal = heads, (width // heads) ** -0.5, causal
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, scale=self.scale)
        return self.out(y.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Pre-norm blocks over learnt positions, and a class per step; or per sample, by its mean."""

    def __init__(self, embed: nn.Module, steps: int, width: int, depth: int, classes: int, causal: bool) -> None:
        super().__init__()
        self.embed, self.position = embed, nn.Parameter(torch.randn(steps, width) / 50)
        self.causal, self.blocks = causal, nn.Sequential()
        for _ in range(depth):
            mlp = (nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            self.blocks.append(Residual(nn.Sequential(nn.LayerNorm(width), Attention(width, 4, causal))))
            self.blocks.append(Residual(nn.Sequential(*mlp)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.blocks(self.embed(x) + self.position))
        return self.head(x if self.causal else x.mean(1))


def vit(data: Data) -> nn.Module:
    embed = nn.Sequential(nn.Conv2d(3, 96, 2, 2), nn.Flatten(2), Swap())
    return Transformer(embed, 64, 96, 3, data.classes, causal=False)


class Swap(nn.Module):
    """``n c t -> n t c``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def gpt(data: Data) -> nn.Module:
    return Transformer(nn.Embedding(data.classes, 96), WINDOW, 96, 3, data.classes, causal=True)


class Tagger(nn.Module):
    """A projection, two LSTMs in both directions, and a class for every step.

    They are two modules: in one of two layers PyTorch asks for the same width in both.
    """

    def __init__(self, bands: int, classes: int) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(bands, 96), nn.Linear(2 * 96, classes)
        self.lower, self.upper = (nn.LSTM(i, 96, batch_first=True, bidirectional=True) for i in (96, 2 * 96))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.upper(self.lower(F.relu(self.first(x)))[0])[0])


def lstm(data: Data) -> nn.Module:
    return Tagger(data.x.shape[-1], data.classes)


TASKS = (
    Task("resnet", resnet, images, "SGD", 0.05, 32),
    Task("mobilenet_v2", mobilenet, images, "SGD", 0.05, 32),
    Task("convnext", convnext, images, "AdamW", 1e-3, 32),
    Task("vit", vit, images, "AdamW", 1e-3, 32),
    Task("gpt", gpt, text, "AdamW", 1e-3, 32),
    Task("lstm", lstm, speech, "AdamW", 2e-3, 32),
)
