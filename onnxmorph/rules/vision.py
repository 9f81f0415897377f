"""Ops on images beyond convolution and pooling: sampling at computed places, unpooling, regions."""

from __future__ import annotations

import numpy as np

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, Write, axes_of, refuse, rule


def deform_conv(node: Node) -> Spec:
    """``n (g i) [y...], (g o) i [k...], n [m] [z...], (g o), n [l] [z...] -> n (g o) z...``.

    Channels that have offsets of their own go in equal numbers from every such set: ``([s] i)`` stands for ``(g i)``.
    """
    g, s = int(node.attributes["group"]), int(node.attributes["offset_group"])
    depth, inner, outer = "(g i)", "i", "(g o)"
    if s > 1:
        depth, inner, outer = {1: ("([s] i)", "([s] i)", "(g o)"), s: ("([g] i)", "i", "([g] o)")}.get(
            g, ("([g] [i])", "i", "([g] o)")
        )
    weight, plain = f"{outer} {inner} [k...]", outer.replace("[g]", "g")
    return Spec(
        f"n {depth} [y...], {weight}, n [m] [z...], {plain}, n [l] [z...] -> n {plain} z...",
        {"g": g, "s": s} if "s" in depth else {"g": g},
        (Write("group", ("g",)),),
    )


def max_unpool(node: Node) -> Spec:
    """``n c [y...], n c [y...], _ -> n c z...``.

    n and c are fixed too unless the indices come straight from a MaxPool over an input of the shape that this makes.
    """
    shape = node.in_shapes[0]
    if shape is None or node.input_index("output_shape") is not None:
        return refuse("unknown-shape", "the shape of the input, or the one it makes, cannot be inferred")
    kernel = np.array(node.attributes["kernel_shape"], np.int64)
    stride = np.array(node.attributes.get("strides") or np.ones_like(kernel))
    pads = np.array(node.attributes.get("pads") or [0] * 2 * len(kernel)).reshape(2, -1).sum(0)
    wide = (np.array(shape[2:]) - 1) * stride - pads + kernel
    points = {1: (*shape[:2], *wide.tolist())}
    return Spec("n c [y...], n c [y...], _ -> n c z...", points_in=points)


def roi_align(node: Node) -> Spec:
    """``[n] c [y...], r [k], r -> r c z...``: n is fixed, for the third input numbers its positions."""
    samples = max(int(node.attributes["sampling_ratio"]), 1) ** 2
    return Spec("[n] c [y...], r [k], r -> r c z...", {"s": samples})


def affine_grid(node: Node) -> Spec:
    """``n [i] [j], _ -> n y... i``: the coordinates are fixed."""
    size = node.sizes("size")
    if size is None:
        return refuse("dynamic", "the size of its grid is not known before running")
    return Spec("n [i] [j], _ -> n y... i", writes=(Write("size", ("n", *(None for _ in size[1:]))),))


def col2im(node: Node) -> Spec:
    """``n (c [k0] [k1]) [l], _, _ -> n c y...``: the block and its places are fixed."""
    block = node.parameter("block_shape")
    if block is None:
        return refuse("dynamic", "the shape of its block is not known before running")
    sizes = {f"k{t}": int(k) for t, k in enumerate(block)}
    return Spec(f"n (c {' '.join(f'[{k}]' for k in sizes)}) [l], _, _ -> n c y...", sizes)


def center_crop_pad(node: Node) -> Spec:
    """``c0 c1 [b2] [b3], _ -> c0 c1 w2 w3``: axes that are cropped or padded are fixed."""
    shape, out = node.in_shapes[0], node.out_shapes[0]
    axes = axes_of(node.attributes.get("axes"), len(shape or ()))
    if shape is None or out is None or node.sizes("shape") is None:
        return refuse("dynamic", "its input's shape or the shape it makes is not known before running")
    same = [a == b for a, b in zip(shape, out, strict=True)]
    before = [f"c{t}" if kept else f"[b{t}]" for t, kept in enumerate(same)]
    after = [f"c{t}" if kept else f"w{t}" for t, kept in enumerate(same)]
    entries = tuple(after[t] if same[t] else None for t in (range(len(shape)) if axes is None else axes))
    return Spec(f"{' '.join(before)}, _ -> {' '.join(after)}", writes=(Write("shape", entries),))


def det(node: Node) -> Spec:
    """``b... [m] [k] -> b...``: the rows and columns of the matrix are fixed."""
    shape = node.in_shapes[0]
    return Spec("b... [m] [k] -> b...", {"j": shape[-1] if shape else 1})


rule("DeformConv", deform_conv, Cost("n g s i o k z", 2, macs=True), weights=[1], bias=3)
rule("MaxUnpool", max_unpool)
rule("MaxRoiPool", "[n] c [y...], r [k] -> r c z...", Cost("r c z"))
rule("RoiAlign", roi_align, Cost("r c z s"))
rule("GridSample", "n c [y...], n z... [d] -> n c z...", Cost("n c z"))
rule("AffineGrid", affine_grid, Cost("n y i j", 2))
rule("Col2Im", col2im, Cost("n c k l"))
rule("CenterCropPad", center_crop_pad)
rule("Det", det, Cost("b m k j"))
