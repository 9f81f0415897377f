"""Losses, in graphs that are exported for training."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, rule


def loss(node: Node) -> Spec:
    """``{n} [c] {d...}, n d..., c -> _``: the classes are fixed, for the second input numbers them.

    Without a reduction, the loss has ``n d...``; a second output has ``n c d...``.
    """
    if node.attributes["reduction"] == "none":
        return Spec("n [c] d..., n d..., c -> n d..., n c d...")
    return Spec("{n} [c] {d...}, n d..., c -> , n c d...")


rule("NegativeLogLikelihoodLoss", loss, Cost("n d"))
rule("SoftmaxCrossEntropyLoss", loss, Cost("n c d", 5))
