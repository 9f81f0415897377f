"""Fourier transforms. One of n points counts 5 n log2 n operations."""

from __future__ import annotations

from math import ceil, log2

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, axis_of, letters, refuse, rule


def _transform(points: int) -> int:
    return 5 * points * ceil(log2(max(points, 2)))


def dft(node: Node) -> Spec:
    """``a0 [b] a2 [c], _, _ -> a0 f a2 r``: the axis that is transformed and the parts of a number are fixed."""
    shape, out = node.in_shapes[0], node.out_shapes[0]
    axis = node.parameter("axis")
    if shape is None or out is None or (axis is None and node.input_index("axis") is not None):
        return refuse("dynamic", "its axis or a shape is not known before running")
    along = axis_of(-2 if axis is None else int(axis), len(shape))
    names = letters(len(shape) - 1)
    before, after = (" ".join(n if t != along else term for t, n in enumerate(names)) for term in ("[b]", "f"))
    return Spec(f"{before} [c], _, _ -> {after} r", cost=Cost("a", _transform(max(shape[along], out[along]))))


def stft(node: Node) -> Spec:
    """``n [t] [c], _, _, _ -> n f b r``: time is fixed."""
    out, window, length = node.out_shapes[0], node.in_shapes[2:3], node.parameter("frame_length")
    if out is None:
        return refuse("dynamic", "the length of its frames is not known before running")
    points = int(length) if length is not None else window[0][0] if window and window[0] else out[2]
    return Spec("n [t] [c], _, _, _ -> n f b r", cost=Cost("n f", _transform(points)))


rule("DFT", dft, Cost("a"))
rule("STFT", stft, Cost("n f"))
