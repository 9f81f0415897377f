"""Ops that regroup axes without touching a value."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np

from onnxmorph.errors import RuleError
from onnxmorph.graph import Node, Shape
from onnxmorph.notation import parse, solve_sizes
from onnxmorph.rules.table import Pin, Spec, Write, axes_of, letters, refuse, rule


def factorise(before: Shape, after: Shape) -> tuple[list[str], list[str], dict[str, int]] | None:
    """Both shapes as products of common factors, outermost first; None where they have none.

    >>> factorise((2, 12), (2, 3, 4))
    (['f0', '(f1 f2)'], ['f0', 'f1', 'f2'], {'f0': 2, 'f1': 3, 'f2': 4})
    """
    if prod(before) != prod(after) or not prod(before):
        return None
    edges = sorted({1, *np.cumprod(before).tolist(), *np.cumprod(after).tolist()})
    if any(high % low for low, high in pairwise(edges)):
        return None
    sizes = {f"f{i}": high // low for i, (low, high) in enumerate(pairwise(edges))}

    def terms(shape: Shape) -> list[str]:
        found, at, edge = [], 0, 1
        for size in shape:
            edge *= size
            names = []
            while at < len(sizes) and edges[at + 1] <= edge:
                names.append(f"f{at}")
                at += 1
            found.append("1" if not names else names[0] if len(names) == 1 else f"({' '.join(names)})")
        return found

    return terms(before), terms(after), sizes


def _factors(node: Node, shape: Shape, out: Shape) -> tuple[list[str], list[str], dict[str, int]] | None:
    """The factors of both shapes, found where dynamic sizes are another choice: at 1, a batch could be anywhere."""
    others = [node.others.get(name) for name in (node.inputs[0], node.outputs[0])]
    if None in others or others == [shape, out]:
        return factorise(shape, out)
    found = factorise(*(other or () for other in others))
    if found is None:
        return None
    before, after, _ = found
    equation = parse(f"{' '.join(before)} -> {' '.join(after)}")
    try:
        return before, after, solve_sizes(equation, ([shape], [out]), {}, str(node))
    except RuleError:  # it takes the axes apart in another way
        return None


def _regroup(node: Node, target: int | None) -> Spec:
    shape, out = node.in_shapes[0], node.out_shapes[0]
    if shape is None or out is None:
        return refuse("unknown-shape", "a shape cannot be inferred")
    found = _factors(node, shape, out)
    if found is None:
        return Spec(f"{' '.join(f'[{n}]' for n in letters(len(shape)))}, _ -> {' '.join(letters(len(out), 'w'))}")
    before, after, sizes = found
    if target is None:
        return Spec(f"{' '.join(before)}, _ -> {' '.join(after)}", sizes)
    wanted = node.partial[target]
    if wanted is None:
        return refuse("dynamic", "its target shape is not known before running")
    # an entry of 0 copies the size of the same input axis, which after a cut may be another's
    alike = [*(a == b for a, b in zip(before, after, strict=False)), *(False for _ in after)]
    entries = tuple(
        None if term == "1" or wanted[t] < 0 or (wanted[t] == 0 and alike[t]) else term for t, term in enumerate(after)
    )
    return Spec(f"{' '.join(before)}, _ -> {' '.join(after)}", sizes, (Write("shape", entries, infers=True),))


def reshape(node: Node) -> Spec:
    """``f0 (f1 f2), _ -> (f0 f1) f2``: both shapes as ordered products of common factors.

    Every axis is fixed where there are none.
    """
    return _regroup(node, 1)


def flatten(node: Node) -> Spec:
    """``f0 f1 f2 f3 -> f0 (f1 f2 f3)``."""
    return _regroup(node, None)


def transpose(node: Node) -> Spec:
    """``a0 a1 a2 -> ...``, the same axes in another order."""
    shape = node.in_shapes[0]
    if shape is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    names = letters(len(shape))
    order = node.attributes.get("perm") or range(len(shape))[::-1]
    return Spec(f"{' '.join(names)} -> {' '.join(names[int(t)] for t in order)}")


def squeeze(node: Node) -> Spec:
    """``a0 [a1] a2, _ -> a0 a2``: an axis that disappears is fixed, for its position has nowhere to go."""
    shape = node.in_shapes[0]
    axes = axes_of(node.parameter("axes"), len(shape or ()))
    if shape is None or (axes is None and node.input_index("axes") is not None):
        return refuse("dynamic", "its axes or its input's shape are not known before running")
    gone = [t for t, s in enumerate(shape) if s == 1] if axes is None else axes
    names = letters(len(shape))
    before = " ".join(f"[{n}]" if t in gone else n for t, n in enumerate(names))
    # without axes it would take away what a cut leaves of others, too
    pins = () if axes is not None else (Pin("axes", tuple(gone)),)
    return Spec(f"{before}, _ -> {' '.join(n for t, n in enumerate(names) if t not in gone)}", pins=pins)


def unsqueeze(node: Node) -> Spec:
    """``a0 a1, _ -> a0 1 a1``."""
    shape, out = node.in_shapes[0], node.out_shapes[0]
    axes = axes_of(node.parameter("axes"), len(out or ()))
    if shape is None or out is None or axes is None:
        return refuse("dynamic", "its axes or its input's shape are not known before running")
    names = letters(len(shape))
    rest = iter(names)
    return Spec(f"{' '.join(names)}, _ -> {' '.join('1' if t in axes else next(rest) for t in range(len(out)))}")


def _depth(node: Node) -> tuple[str, dict[str, int]]:
    """The channels and the block, which lies outside of them or inside; and the block's sizes."""
    size = int(node.attributes["blocksize"])
    inside = node.attributes.get("mode", "DCR") == "CRD"
    return "(c [b0] [b1])" if inside else "([b0] [b1] c)", {"b0": size, "b1": size}


def depth_to_space(node: Node) -> Spec:
    """``n ([b0] [b1] c) h w -> n c (h b0) (w b1)``, or ``n (c [b0] [b1]) h w``; the block is fixed."""
    depth, sizes = _depth(node)
    return Spec(f"n {depth} h w -> n c (h [b0]) (w [b1])", sizes)


def space_to_depth(node: Node) -> Spec:
    """``n c (h [b0]) (w [b1]) -> n (b0 b1 c) h w``; the block is fixed."""
    depth, sizes = _depth(node)
    return Spec(f"n c (h [b0]) (w [b1]) -> n {depth} h w", sizes)


rule("Reshape", reshape, view=True, keeps=True)
rule("Flatten", flatten, view=True, keeps=True)
rule("Transpose", transpose, keeps=True)
rule("Squeeze", squeeze, view=True, keeps=True)
rule("Unsqueeze", unsqueeze, view=True, keeps=True)
rule("DepthToSpace", depth_to_space, keeps=True)
rule("SpaceToDepth", space_to_depth, keeps=True)
