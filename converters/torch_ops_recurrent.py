"""ONNX's recurrent layers on torch tensors, by PyTorch's own kernels: the table ``RECURRENT``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from onnxmorph.converters.torch_ops import Op, Run, Unsupported
from onnxmorph.graph import Node

# The order of ONNX's gates in PyTorch's weights.
GATES = {"LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2], "RNN": [0]}
LAYER: dict[tuple[str, str], Callable[..., tuple[Tensor, ...]]] = {
    ("LSTM", ""): torch.lstm,
    ("GRU", ""): torch.gru,
    ("RNN", "Tanh"): torch.rnn_tanh,
    ("RNN", "Relu"): torch.rnn_relu,
}
USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}


def recurrent(node: Node) -> Run:
    """``t n i, d (g h) i, d (g h) h, d (2 g h) -> t d n h`` and the last states, ``d n h``."""
    kind, size = node.type, node.attributes["hidden_size"]
    order, direction = GATES[kind], node.attributes["direction"]
    both = direction == "bidirectional"
    given = [f.decode() if isinstance(f, bytes) else f for f in node.attributes.get("activations") or ()]
    name = "" if kind in USUAL else given[0]  # only RNN's have a default
    usual = USUAL.get(kind, [name]) * (1 + both)
    if (given or usual)[: len(usual)] != usual or (kind, name) not in LAYER:
        raise Unsupported(f"activations={given}")
    for key in ("clip", "layout", "input_forget"):
        if node.attributes.get(key):
            raise Unsupported(f"{key}={node.attributes[key]}")
    if kind == "GRU" and not node.attributes.get("linear_before_reset"):
        raise Unsupported("linear_before_reset=0")
    for key in ("sequence_lens", "P"):
        if node.input_index(key) is not None:
            raise Unsupported(f"the input {key}")

    def gates(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (len(order), size))[order].flatten(0, 1)

    def run(
        x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, _: None = None,
        h: Tensor | None = None, c: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        start = x.new_zeros(len(w), x.shape[1], size)
        states = [start if h is None else h, start if c is None else c]
        weights = []
        for d in range(len(w)):
            weights += [gates(w[d]), gates(r[d])]
            weights += [gates(part) for part in b[d].chunk(2)] if b is not None else []
        x = x.flip(0) if direction == "reverse" else x
        state = states if kind == "LSTM" else states[0]
        # As in training, with a dropout of 0: without, cuDNN gives no gradients.
        y, *last = LAYER[kind, name](x, state, weights, b is not None, 1, 0.0, True, both, False)
        y = y.unflatten(2, (len(w), size)).transpose(1, 2)
        return (y.flip(0) if direction == "reverse" else y, *last)

    return run


RECURRENT: dict[str, Op] = {
    "GRU": Op(recurrent, outputs=2),
    "LSTM": Op(recurrent, outputs=3),
    "RNN": Op(recurrent, outputs=2),
}
