"""Recurrent layers; those with the batch first are more than ONNX Runtime knows."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from rows.row import Act, Input, Row, Weight

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
T, N, X, H = 5, 3, 4, 6
LENGTHS = Act((N,), 2, 5.9, TensorProto.INT32)


def recurrent(op: str, d: int, *rest: Input, free: str = "n i h j", first: bool = False, **options: Any) -> Row:
    """A node with `d` directions; `rest` follows the weights."""
    gates = GATES[op] * H
    attributes = {"hidden_size": H, **options.pop("attributes", {}), **({"layout": 1} if first else {})}
    weights = (Weight((d, gates, X)), Weight((d, gates, H)))
    inputs = (Act((N, T, X) if first else (T, N, X)), *weights, *rest)
    outputs = options.pop("outputs", 3 if op == "LSTM" else 2)
    return Row(op, inputs, free, attributes, opset=options.pop("opset", 14), outputs=outputs, **options)


def whole(op: str) -> list[Row]:
    """Every input that there is, in one direction and in two."""
    gates, both, states = GATES[op] * H, {"direction": "bidirectional"}, 2 if op == "LSTM" else 1
    rows = []
    for d, attributes, note in ((1, {}, "all"), (2, both, "both-ways")):
        rest = [Weight((d, 2 * gates)), LENGTHS, *[Act((d, N, H))] * states]
        rest += [Weight((d, 3 * H))] if op == "LSTM" else []
        rows.append(recurrent(op, d, *rest, attributes=attributes, note=note))
    rest = [Weight((1, 2 * gates)), None, *[Act((N, 1, H))] * states]
    return [*rows, recurrent(op, 1, *rest, first=True, reference=True, note="batch-first")]


ROWS = [
    *(row for op in GATES for row in whole(op)),
    *(recurrent(op, 1, outputs=1, note="plain") for op in GATES),
    recurrent("LSTM", 1, Weight((1, 8 * H)), opset=7, note="old"),
    recurrent("RNN", 1, attributes={"direction": "reverse", "activations": ["Sigmoid"]}, note="reverse"),
    recurrent("GRU", 2, attributes={"direction": "bidirectional", "linear_before_reset": 1}, note="reset-after"),
    recurrent("LSTM", 1, None, None, Weight((1, N, H)), Weight((1, N, H)), opset=22, note="learnt-state"),
]
