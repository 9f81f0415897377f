"""Recurrent layers. A gate is a block of the hidden factor h, so blocks are concatenated: h in all is one group.

Each step sums over what the step before wrote: j is h in that role.
"""

from __future__ import annotations

from collections.abc import Callable

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, Write, refuse, rule


def _recurrent(gates: int, peepholes: int = 0) -> Callable[[Node], Spec]:
    def bind(node: Node) -> Spec:
        """``[t] n i, [d] (h + …) i, d (h + …) j, d (h + …), n, d n h, d n h, d (h + …) -> t d n h, d n h, d n h``

        Time t and directions d are fixed: a step depends on the one before, and the op has one direction or two.
        """
        recurrence = node.in_shapes[2]
        if recurrence is None or len(recurrence) != 3:
            return refuse("unknown-shape", "the shape of its recurrence weights cannot be inferred")
        batch_first = bool(node.attributes.get("layout", 0))  # from opset 14 on
        sequence, state = ("n [t] i", "n d h") if batch_first else ("[t] n i", "d n h")
        states = [state] * (2 if peepholes else 1)
        weights = [f"[d] {_blocks(gates)} i", f"d {_blocks(gates)} j", f"d {_blocks(2 * gates)}"]
        inputs = [sequence, *weights, "n", *states, *([f"d {_blocks(peepholes)}"] if peepholes else [])]
        outputs = ["n t d h" if batch_first else "t d n h", *states]
        return Spec(
            f"{', '.join(inputs)} -> {', '.join(outputs)}",
            {"h": recurrence[-1], "g": gates},
            (Write("hidden_size", ("h",)),) if "hidden_size" in node.attributes else (),
            same=(("j", "h"),),
        )

    return bind


def _blocks(count: int) -> str:
    return "h" if count == 1 else f"({' + '.join(['h'] * count)})"


PRODUCTS = "t n d g h (i + j)"

rule("RNN", _recurrent(1), Cost(PRODUCTS, 2, macs=True, plus=Cost("t n d h", 1)), weights=[1, 2])
rule("GRU", _recurrent(3), Cost(PRODUCTS, 2, macs=True, plus=Cost("t n d h", 8)), weights=[1, 2])
rule("LSTM", _recurrent(4, 3), Cost(PRODUCTS, 2, macs=True, plus=Cost("t n d h", 9)), weights=[1, 2])
