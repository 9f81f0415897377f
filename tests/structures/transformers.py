"""What stands around attention: gated MLPs, experts, embeddings, norms; and the ops that say attention at once."""

from __future__ import annotations

import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor, nn

from structures.attention import EMBEDDING, HEADS, HIDDEN, INPUT, KEY, VALUE, Causal, Encoder, Separate
from structures.registry import Tokens, graph, module
from tiny import model, node, value, weight


class Gated(nn.Module):
    """A gated MLP with two projections, or one for both."""

    def __init__(self, act: nn.Module, fused: bool = False, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.act, self.down = act, nn.Linear(hidden, EMBEDDING, bias=False)
        self.up = nn.ModuleList(nn.Linear(EMBEDDING, n, bias=False) for n in ([2 * hidden] if fused else [hidden] * 2))

    def forward(self, x: Tensor) -> Tensor:
        gate, value = (up(x) for up in self.up) if len(self.up) > 1 else self.up[0](x).chunk(2, -1)
        return self.down(self.act(gate) * value)


@module("gated_mlps", INPUT, widths=[EMBEDDING, 22, 23, 24, 25])
def gated_mlps() -> nn.Module:
    """SwiGLU and GeGLU, with separate and with fused projections."""
    acts, forms = (nn.SiLU(), nn.GELU()), ((False, 22), (True, 24))
    return Encoder(*(Gated(act, fused, width + i) for i, act in enumerate(acts) for fused, width in forms))


class Experts(nn.Module):
    """Every expert sees every token; a softmax weighs them. Each has a hidden layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(EMBEDDING, 3)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(EMBEDDING, n), nn.ReLU(), nn.Linear(n, EMBEDDING)) for n in (8, 12, 16)
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(-1)
        return torch.stack([weights[..., i, None] * e(x) for i, e in enumerate(self.experts)]).sum(0)


@module("experts_apart", INPUT, widths=[EMBEDDING, 8, 12, 16])
def experts_apart() -> nn.Module:
    return Encoder(Experts())


class StackedExperts(nn.Module):
    """The experts' weights are stacked: they share one hidden width, and whole experts can go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(EMBEDDING, 6)
        self.up, self.down = nn.Embedding(6 * EMBEDDING, HIDDEN), nn.Embedding(6 * HIDDEN, EMBEDDING)

    def forward(self, x: Tensor) -> Tensor:
        up, down = self.up.weight.view(6, EMBEDDING, HIDDEN), self.down.weight.view(6, HIDDEN, EMBEDDING)
        each = F.gelu(x[:, None] @ up) @ down
        return (each * self.gate(x).softmax(-1).transpose(1, 2)[..., None]).sum(1)


@module("experts_stacked", INPUT, widths=[EMBEDDING, 6, HIDDEN])
def experts_stacked() -> nn.Module:
    return Encoder(StackedExperts())


class TiedEmbedding(nn.Module):
    """A language model whose output projection is its input embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(13, EMBEDDING), nn.Embedding(7, EMBEDDING)
        self.layer, self.out = Causal(), nn.Linear(EMBEDDING, 13, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x) + self.positions(torch.arange(x.shape[1]))
        return self.out(x + self.layer(x))


@module("tied_embedding", Tokens(2, 7), widths=[EMBEDDING, HEADS, KEY, VALUE])
def tied_embedding() -> nn.Module:
    return TiedEmbedding()


@module("one_layer_twice", INPUT, widths=[EMBEDDING, HEADS, KEY, VALUE, HIDDEN])
def one_layer_twice() -> nn.Module:
    """The same attention and the same MLP called twice, as in ALBERT."""
    attention, mlp = Separate(), Gated(nn.GELU())
    return Encoder(attention, mlp, attention, mlp)


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(EMBEDDING))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class LayerNorm(RmsNorm):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(EMBEDDING))

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.weight + self.bias


@module("norms_spelled_out", INPUT, widths=[EMBEDDING, HIDDEN, HIDDEN])
def norms_spelled_out() -> nn.Module:
    return Encoder(*(nn.Sequential(norm, Gated(nn.SiLU())) for norm in (RmsNorm(), LayerNorm())))


# ---------------------------------------------------------------- the ops that say all this at once


GROUPED = {"wq": (10, 6 * KEY), "wk": (10, 2 * KEY), "wv": (10, 2 * VALUE), "wo": (6 * VALUE, 6)}
X, Y = value("x", ["n", 7, 10]), value("y", ["n", 7, 6])
PROJECTIONS = [node("MatMul", f"x w{n}", f"p{n}") for n in "qkv"]


def weights(shapes: dict[str, tuple[int, ...]]) -> list[onnx.TensorProto]:
    return [weight(name, *shape, seed=i) for i, (name, shape) in enumerate(shapes.items())]


@graph("attention_op_packed", widths=[2, 3, KEY, VALUE])
def attention_op_packed() -> onnx.ModelProto:
    """Three axes, two key heads with three heads each; queries and keys are nowhere zero, and scores are capped."""
    nodes = [
        *PROJECTIONS,
        *(node("Sigmoid", f"p{n}", n) for n in "qk"),
        node("Attention", "q k pv", "a", q_num_heads=6, kv_num_heads=2, is_causal=1, softcap=2.0),
        node("MatMul", "a wo", "y"),
    ]
    return model(nodes, weights(GROUPED), [X], [Y], opset=23)


@graph("attention_op_rotary", widths=[2, 3, KEY // 2, VALUE])
def attention_op_rotary() -> onnx.ModelProto:
    """The same behind RotaryEmbedding, with caches that queries and keys share."""
    nodes = [
        *PROJECTIONS,
        node("RotaryEmbedding", "pq cos sin at", "q", num_heads=6),
        node("RotaryEmbedding", "pk cos sin at", "k", num_heads=2),
        node("Attention", "q k pv", "a", q_num_heads=6, kv_num_heads=2, is_causal=1, softcap=2.0),
        node("MatMul", "a wo", "y"),
    ]
    caches = {"cos": (9, KEY // 2), "sin": (9, KEY // 2)}
    inputs = [X, value("at", ["n", 7], TensorProto.INT64)]
    return model(nodes, weights(GROUPED | caches), inputs, [Y], opset=23)


@graph("attention_op_cache", widths=[3, HIDDEN], removable=0.8)
def attention_op_cache() -> onnx.ModelProto:
    """Past keys and values go in and out: this fixes key heads and their sizes, but not how many heads use each."""
    nodes = [
        *PROJECTIONS,
        node("Attention", "pq pk pv  past_k past_v", "a k v", q_num_heads=6, kv_num_heads=2),
        node("MatMul", "a up", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r down", "y"),
    ]
    nodes[3].input.insert(3, "")
    shapes = {**GROUPED, "up": (6 * VALUE, HIDDEN), "down": (HIDDEN, 6)}
    del shapes["wo"]
    states = {"k": KEY, "v": VALUE}
    past = [value(f"past_{n}", ["n", 2, 4, size]) for n, size in states.items()]
    present = [value(n, ["n", 2, 11, size]) for n, size in states.items()]
    return model(nodes, weights(shapes), [X, *past], [Y, *present], opset=23)
