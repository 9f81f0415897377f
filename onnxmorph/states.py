"""Zero states, which recurrent ops assume where none is given.

Exporters make the first state of a layer in the graph, and often one tensor of zeros for several layers. Layers that
have nothing else in common would be tied through it, so such inputs are dropped on load: the op computes the same.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxmorph.graph import read

STATES = {"RNN": (5,), "GRU": (5,), "LSTM": (5, 6)}  # the inputs that count as zeros when absent
ONNX = ("", "ai.onnx")
_NAMES = "Cast Concat Expand Gather Identity Reshape Slice Split Squeeze Tile Transpose Unsqueeze"
MOVES = frozenset(_NAMES.split())


def drop_zero_states(model: ir.Model, constants: Collection[str]) -> None:
    """Remove the states that are zeros whatever the input.

    Args:
        model: is changed.
        constants: names of the initializers that are known to be no parameters. A tensor of zeros that is read only
            once may be a state that is still to be learnt, and stays.
    """
    given = [
        (node, i)
        for node in model.graph
        for i in (STATES.get(node.op_type, ()) if node.domain in ONNX else ())
        if i < len(node.inputs) and _is_zero(node.inputs[i], constants)
    ]
    for node, i in given:  # only now: what is shared is judged by its readers
        node.replace_input_with(i, None)


def _is_zero(value: ir.Value | None, constants: Collection[str]) -> bool:
    """Whether a tensor is made of zeros by the graph itself."""
    waiting, seen = [value], set[ir.Value]()
    while waiting:
        each = waiting.pop()
        if each is None:
            return False
        if each in seen:
            continue
        seen.add(each)
        made = each.producer()
        if each.is_initializer():
            tensor = each.const_value
            shared = each.name in constants or len(each.uses()) > 1
            if tensor is None or not (shared or tensor.shape.rank() == 0) or np.any(read(tensor, each.name or "")):
                return False
        elif made is None or made.domain not in ONNX:
            return False
        elif made.op_type in MOVES:
            waiting += made.inputs if made.op_type == "Concat" else made.inputs[:1]
        elif made.op_type != "ConstantOfShape" or _fills(made):
            return False
    return True


def _fills(node: ir.Node) -> bool:
    """Whether a ConstantOfShape makes anything but zeros."""
    value = node.attributes.get("value")
    if value is None:
        return False
    return value.type != ir.AttributeType.TENSOR or bool(np.any(read(value.as_tensor(), "value")))
