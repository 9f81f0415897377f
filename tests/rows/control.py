"""Ops with bodies. The bodies read the activations a0 a1 … by name."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from rows.row import MATRIX, Act, Row
from tiny import node, value

BOOL, INT = TensorProto.BOOL, TensorProto.INT64
FLAG = Act((), kind=BOOL)


def body(nodes: list[onnx.NodeProto], inputs: str, outputs: str, ranks: str) -> onnx.GraphProto:
    """A body; ``ranks`` holds one letter per input and output: b and i for a condition and a number, else the rank."""

    def typed(name: str, rank: str) -> onnx.ValueInfoProto:
        kind = {"b": BOOL, "i": INT}.get(rank)
        return value(name, [None] * int(rank)) if kind is None else value(name, [], kind)

    names = [*inputs.split(), *outputs.split()]
    infos = [typed(n, r) for n, r in zip(names, ranks, strict=True)]
    count = len(inputs.split())
    return helper.make_graph(nodes, "body", infos[:count], infos[count:])


BRANCHES = {
    "then_branch": body([node("Relu", "a1", "o")], "", "o", "2"),
    "else_branch": body([node("Mul", "a1 a2", "p")], "", "p", "2"),
}
STEP = body(
    [node("Identity", "on", "still"), node("Mul", "h a3", "m"), node("Tanh", "m", "t"), node("Neg", "m", "s")],
    "i on h",
    "still t s",
    "ib2b22",
)
SCAN = body([node("Mul", "h x", "m"), node("Tanh", "m", "t"), node("Neg", "m", "s")], "h x", "t s", "2222")
TIMES, TRUE = np.array(3), np.array(True)

ROWS = [
    Row("If", (FLAG, MATRIX, MATRIX), "a~0 a~1", BRANCHES, captured=2),
    Row(
        "Loop",
        (TIMES, TRUE, MATRIX, MATRIX),
        "a~0 a~1",
        {"body": STEP},
        outputs=2,
        captured=1,
        shapes=((4, 6), (3, 4, 6)),
    ),
    Row("Scan", (MATRIX, Act((5, 4, 6))), "a~0 a~1", {"body": SCAN, "num_scan_inputs": 1}, outputs=2),
    Row(
        "Scan",
        (MATRIX, Act((4, 5, 6))),
        "a~0 a~1",
        {
            "body": SCAN,
            "num_scan_inputs": 1,
            "scan_input_axes": [-2],
            "scan_input_directions": [1],
            "scan_output_axes": [2],
            "scan_output_directions": [1],
        },
        outputs=2,
        note="axes",
    ),
]
