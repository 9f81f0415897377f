"""Recurrent networks: states of every kind, stacks, both directions, and what stands before and behind them."""

from __future__ import annotations

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from structures.registry import Tokens, graph, module
from tiny import integers, model, node, value, weight

INPUT = (2, 7, 10)


class First(nn.Module):
    """What a recurrent module says, without its states."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)[0]


@module("lstm_stacked", INPUT, widths=[12, 12])
def lstm_stacked() -> nn.Module:
    """Two layers share one tensor of zeros as their first state, which must not tie them."""
    return nn.Sequential(First(nn.LSTM(10, 12, 2, batch_first=True)), nn.Linear(12, 5))


@module("gru_both_ways", INPUT, widths=[9, 12])
def gru_both_ways() -> nn.Module:
    """A channel is the same one in both directions: the op has one hidden size."""
    stem = nn.Sequential(nn.Linear(10, 9), nn.ReLU())
    return nn.Sequential(stem, First(nn.GRU(9, 12, batch_first=True, bidirectional=True)), nn.Linear(24, 5))


@module("rnn_relu", INPUT, widths=[12, 14])
def rnn_relu() -> nn.Module:
    layers = First(nn.RNN(10, 12, nonlinearity="relu", batch_first=True)), First(nn.RNN(12, 14, batch_first=True))
    return nn.Sequential(*layers, nn.Linear(14, 5))


class LearntState(nn.Module):
    """The first state is learnt, and the same for every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(10, 12, batch_first=True), nn.Linear(12, 5)
        self.hidden, self.cell = nn.Embedding(1, 12), nn.Embedding(1, 12)

    def forward(self, x: Tensor) -> Tensor:
        states = [s.weight[:, None].expand(-1, x.shape[0], -1).contiguous() for s in (self.hidden, self.cell)]
        return self.head(self.lstm(x, (states[0], states[1]))[0][:, -1])


@module("lstm_learnt_state", INPUT, widths=[12])
def lstm_learnt_state() -> nn.Module:
    return LearntState()


class StateInAndOut(nn.Module):
    """One step of a stream: states are inputs and outputs, which fixes the hidden layer; what feeds it is free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gru, self.head = nn.Linear(10, 9), nn.GRU(9, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.gru(torch.relu(self.stem(x)), state.transpose(0, 1).contiguous())
        return self.head(y), state.transpose(0, 1)


@module("gru_state_in_and_out", INPUT, (2, 1, 12), widths=[9], removable=0.4)
def gru_state_in_and_out() -> nn.Module:
    return StateInAndOut()


class Crnn(nn.Module):
    """Convolutions, whose channels and rows become one axis, and an LSTM along the columns."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 3, padding=1)
        )
        self.lstm, self.head = nn.LSTM(40, 12, batch_first=True, bidirectional=True), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs(x).permute(0, 3, 1, 2).flatten(2)
        return self.head(self.lstm(y)[0]).log_softmax(-1)


@module("crnn", (2, 1, 8, 16), widths=[8, 10, 12])
def crnn() -> nn.Module:
    return Crnn()


@module("lstm_tagger", Tokens(2, 7), widths=[11, 12])
def lstm_tagger() -> nn.Module:
    lstm = nn.LSTM(11, 12, batch_first=True, bidirectional=True)
    return nn.Sequential(nn.Embedding(30, 11), First(lstm), nn.Linear(24, 5))


# ---------------------------------------------------------------- written by hand


def zeros_for_a_batch(names: str) -> list[onnx.NodeProto]:
    """Zeros ``[layers, batch, hidden]`` for a batch that is not known, one slice for every layer."""
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0])
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s one", "n", axis=0),
        node("Concat", "two n hidden", "z", axis=0),
        node("ConstantOfShape", "z", "zeros", value=zero),
    ]
    first, second = names.split()
    return [*nodes, node("Slice", "zeros nil one nil", first), node("Slice", "zeros one two nil", second)]


@graph("gru_dynamic_zero_state", widths=[12, 12])
def gru_dynamic_zero_state() -> onnx.ModelProto:
    """As TorchScript writes it where the batch is dynamic: zeros of the shape that the graph computes."""
    nodes = [
        *zeros_for_a_batch("h1 h2"),
        node("GRU", "x w1 r1 b1  h1", "y1", hidden_size=12),
        node("Squeeze", "y1 one", "u1"),
        node("GRU", "u1 w2 r2 b2  h2", "y2", hidden_size=12),
        node("Squeeze", "y2 one", "u2"),
        node("MatMul", "u2 w", "y"),
    ]
    for each in (nodes[6], nodes[8]):
        each.input.insert(4, "")
    shapes = {"w1": (1, 36, 10), "r1": (1, 36, 12), "b1": (1, 72), "w2": (1, 36, 12), "r2": (1, 36, 12), "b2": (1, 72)}
    weights = [weight(name, *shape, seed=i) for i, (name, shape) in enumerate({**shapes, "w": (12, 5)}.items())]
    numbers = [integers("nil", 0), integers("one", 1), integers("two", 2), integers("hidden", 12)]
    return model(nodes, [*weights, *numbers], [value("x", [7, "n", 10])], [value("y", [7, "n", 5])])


@graph("lstm_peepholes", widths=[12])
def lstm_peepholes() -> onnx.ModelProto:
    """Every output is read: the sequence, the last hidden state and the last cell."""
    nodes = [
        node("LSTM", "x w r b  h0 c0 p", "s h c", hidden_size=12, direction="reverse"),
        node("Squeeze", "s one", "t"),
        node("Squeeze", "h nil", "h1"),
        node("Squeeze", "c nil", "c1"),
        node("Add", "h1 c1", "last"),
        node("Add", "t last", "u"),
        node("MatMul", "u o", "y"),
    ]
    nodes[0].input.insert(4, "")
    shapes = {"w": (1, 48, 10), "r": (1, 48, 12), "b": (1, 96), "h0": (1, 2, 12), "c0": (1, 2, 12), "p": (1, 36)}
    weights = [weight(name, *shape, seed=i) for i, (name, shape) in enumerate({**shapes, "o": (12, 5)}.items())]
    numbers = [integers("nil", 0), integers("one", 1)]
    return model(nodes, [*weights, *numbers], [value("x", [7, 2, 10])], [value("y", [7, 2, 5])])


# ---------------------------------------------------------------- state spaces


class Mamba(nn.Module):
    """A selective state space: causal depthwise convolution, and the scan spelled out step by step."""

    def __init__(self, size: int, inner: int, state: int, rank: int) -> None:
        super().__init__()
        self.sizes = [rank, state, state]
        self.into, self.out = nn.Linear(size, 2 * inner, bias=False), nn.Linear(inner, size, bias=False)
        self.conv = nn.Conv1d(inner, inner, 3, groups=inner, padding=2)
        self.parts, self.step = nn.Linear(inner, sum(self.sizes), bias=False), nn.Linear(rank, inner)
        self.rate, self.skip = nn.Embedding(inner, state), nn.Embedding(1, inner)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.into(x).chunk(2, -1)
        u = nn.functional.silu(self.conv(u.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        rank, b, c = self.parts(u).split(self.sizes, -1)
        step = nn.functional.softplus(self.step(rank))
        decay = torch.exp(-step[..., None] * self.rate.weight.exp())
        inflow = (step * u)[..., None] * b[:, :, None]
        state = torch.zeros_like(inflow[:, 0])
        outputs = []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + inflow[:, t]
            outputs.append((state * c[:, t, None]).sum(-1))
        y = torch.stack(outputs, 1) + u * self.skip.weight
        return self.out(y * nn.functional.silu(gate))


class Residuals(nn.Module):
    def __init__(self, size: int, *layers: nn.Module) -> None:
        super().__init__()
        self.stem, self.layers, self.head = nn.Linear(10, size), nn.ModuleList(layers), nn.Linear(size, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


@module("mamba", (2, 5, 10), widths=[2, 2, 6, 6, 12, 16, 16])
def mamba() -> nn.Module:
    """Two layers: embedding 12; and inner width 16, state 6, rank 2 each."""
    return Residuals(12, Mamba(12, 16, 6, 2), Mamba(12, 16, 6, 2))
