"""Attention in all the ways that people write it.

Heads, the size of queries and keys, the size of values and the embedding have different widths here, so that `widths`
tells which groups were found.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from structures.registry import module

EMBEDDING, HEADS, KEY, VALUE, HIDDEN = 20, 3, 4, 5, 24
INPUT = (2, 7, 10)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Over ``[batch, heads, sequence, size]``; heads are merged again."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(KEY)
    scores = scores if bias is None else scores + bias
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Separate(nn.Module):
    """Projections of their own for queries, keys and values; fewer key heads than heads where `groups` says so."""

    def __init__(self, heads: int = HEADS, groups: int = HEADS, value: int = VALUE, size: int = EMBEDDING) -> None:
        super().__init__()
        self.heads, self.groups = heads, groups
        self.q, self.k = nn.Linear(size, heads * KEY), nn.Linear(size, groups * KEY)
        self.v, self.out = nn.Linear(size, groups * value), nn.Linear(heads * value, size)

    def rotate(self, x: Tensor) -> Tensor:
        return x

    def bias(self, q: Tensor) -> Tensor | None:
        return None

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k = self.rotate(split_heads(self.q(x), self.heads)), self.rotate(split_heads(self.k(context), self.groups))
        v = split_heads(self.v(context), self.groups)
        k, v = (self.repeat(each) for each in (k, v))
        return self.out(softmax_attention(q, k, v, self.bias(q)))

    def repeat(self, x: Tensor) -> Tensor:
        """As transformers writes it: expand, then reshape."""
        times = self.heads // self.groups
        if times == 1:
            return x
        b, g, n, e = x.shape
        return x[:, :, None, :, :].expand(b, g, times, n, e).reshape(b, g * times, n, e)


class Encoder(nn.Module):
    """A stem, layers with a skip connection each, and a head: the embedding is one group."""

    def __init__(self, *layers: nn.Module, classes: int = 6) -> None:
        super().__init__()
        self.stem, self.layers = nn.Linear(INPUT[-1], EMBEDDING), nn.ModuleList(layers)
        self.head = nn.Linear(EMBEDDING, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


@module("attention_separate", INPUT, widths=[EMBEDDING, HEADS, KEY, VALUE])
def attention_separate() -> nn.Module:
    return Encoder(Separate())


class Fused(nn.Module):
    """One projection for queries, keys and values, in three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(EMBEDDING, 3 * HEADS * KEY), nn.Linear(HEADS * KEY, EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (split_heads(each, HEADS) for each in self.qkv(x).chunk(3, -1))
        return self.out(softmax_attention(q, k, v))


@module("attention_fused", INPUT, widths=[EMBEDDING, HEADS, KEY, KEY])
def attention_fused() -> nn.Module:
    return Encoder(Fused())


class PackedByHead(Fused):
    """One projection in which every head has its query, key and value side by side, as in GPT-NeoX."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = split_heads(self.qkv(x), HEADS).chunk(3, -1)
        return self.out(softmax_attention(q, k, v))


@module("attention_packed_by_head", INPUT, widths=[EMBEDDING, HEADS, KEY, KEY])
def attention_packed_by_head() -> nn.Module:
    return Encoder(PackedByHead())


class PackedUnbound(Fused):
    """One projection, reshaped to five axes and taken apart by index, as timm writes it.

    While all three are one tensor, an axis has one labelling: values have the same size of head as queries and keys.
    """

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, HEADS, KEY).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(softmax_attention(q, k, v))


@module("attention_packed_unbound", INPUT, widths=[EMBEDDING, HEADS, KEY])
def attention_packed_unbound() -> nn.Module:
    return Encoder(PackedUnbound())


@module("attention_torch", INPUT, widths=[EMBEDDING, 4, 5, HIDDEN])
def attention_torch() -> nn.Module:
    """PyTorch's own encoder layer, which takes its projection apart in the same way."""
    return Encoder(nn.TransformerEncoderLayer(EMBEDDING, 4, HIDDEN, batch_first=True, norm_first=True))


@module("attention_grouped", INPUT, widths=[EMBEDDING, 2, 3, KEY, VALUE])
def attention_grouped() -> nn.Module:
    """Two key heads, three heads for each."""
    return Encoder(Separate(6, 2))


@module("attention_multi_query", INPUT, widths=[EMBEDDING, HEADS, KEY, VALUE])
def attention_multi_query() -> nn.Module:
    return Encoder(Separate(HEADS, 1))


# ---------------------------------------------------------------- positions


def angles(n: int, size: int) -> Tensor:
    return torch.arange(n)[:, None] / 10.0 ** (torch.arange(size // 2) / size)


class Halves(Separate):
    """Rotary embeddings of halves, as LLaMA writes them."""

    def rotate(self, x: Tensor) -> Tensor:
        angle = angles(x.shape[2], KEY).repeat(1, 2)
        first, second = x[..., : KEY // 2], x[..., KEY // 2 :]
        return x * angle.cos() + torch.cat([-second, first], -1) * angle.sin()


class Neighbours(Separate):
    """Rotary embeddings of neighbours, as GPT-J writes them."""

    def rotate(self, x: Tensor) -> Tensor:
        angle = angles(x.shape[2], KEY).repeat_interleave(2, -1)
        turned = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
        return x * angle.cos() + turned * angle.sin()


class Partial(Separate):
    """The first two positions of a head are rotated, the others pass."""

    def rotate(self, x: Tensor) -> Tensor:
        angle = angles(x.shape[2], 2)
        first, second, rest = x[..., :1], x[..., 1:2], x[..., 2:]
        return torch.cat(
            [first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin(), rest], -1
        )


@module("rotary_halves", INPUT, widths=[EMBEDDING, HEADS, KEY // 2, VALUE])
def rotary_halves() -> nn.Module:
    return Encoder(Halves())


@module("rotary_grouped", INPUT, widths=[EMBEDDING, 2, 3, KEY // 2, VALUE])
def rotary_grouped() -> nn.Module:
    return Encoder(Halves(6, 2))


@module("rotary_neighbours", INPUT, widths=[EMBEDDING, HEADS, KEY // 2, VALUE])
def rotary_neighbours() -> nn.Module:
    return Encoder(Neighbours())


@module("rotary_partial", INPUT, widths=[EMBEDDING, HEADS, 1, KEY - 2, VALUE])
def rotary_partial() -> nn.Module:
    return Encoder(Partial())


class Alibi(Separate):
    """A slope per head times the distance."""

    def bias(self, q: Tensor) -> Tensor:
        n = q.shape[2]
        distance = (torch.arange(n)[None] - torch.arange(n)[:, None]).abs()
        slopes = 2.0 ** -torch.arange(1, self.heads + 1)
        return -slopes[:, None, None] * distance


@module("attention_alibi", INPUT, widths=[EMBEDDING, HEADS, KEY, VALUE])
def attention_alibi() -> nn.Module:
    return Encoder(Alibi())


class RelativeTable(Separate):
    """A learnt bias for every head and distance."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2 * INPUT[1] - 1, HEADS)

    def bias(self, q: Tensor) -> Tensor:
        n = q.shape[2]
        index = torch.arange(n)[None] - torch.arange(n)[:, None] + n - 1
        return self.table(index).permute(2, 0, 1)


@module("attention_relative_table", INPUT, widths=[EMBEDDING, HEADS, KEY, VALUE])
def attention_relative_table() -> nn.Module:
    return Encoder(RelativeTable())


class Causal(Separate):
    def bias(self, q: Tensor) -> Tensor:
        n = q.shape[2]
        return torch.full((n, n), -1e9).triu(1)


@module("attention_causal", INPUT, widths=[EMBEDDING, HEADS, KEY, VALUE])
def attention_causal() -> nn.Module:
    return Encoder(Causal())


class Cross(nn.Module):
    """A decoder layer: what comes from the other input has an embedding of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.context = nn.Linear(INPUT[-1], EMBEDDING), nn.Linear(8, 22)
        self.attention, self.head = Separate(), nn.Linear(EMBEDDING, 6)
        self.attention.k, self.attention.v = nn.Linear(22, HEADS * KEY), nn.Linear(22, HEADS * VALUE)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.attention(x, self.context(context)))


@module("attention_cross", INPUT, (2, 9, 8), widths=[EMBEDDING, 22, HEADS, KEY, VALUE])
def attention_cross() -> nn.Module:
    return Cross()


class Windows(nn.Module):
    """Attention within windows of an image, shifted by half a window, as in Swin."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift, self.attention, self.norm = shift, Separate(), nn.LayerNorm(EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2)) if self.shift else self.norm(x)
        y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = self.attention(y)
        y = y.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y


@module("attention_windows", (2, 8, 8, 10), widths=[EMBEDDING, HEADS, HEADS, KEY, KEY, VALUE, VALUE])
def attention_windows() -> nn.Module:
    return Encoder(Windows(0), Windows(2))
