"""Ops that only move positions: joining, cutting, picking, padding, resampling."""

from __future__ import annotations

import numpy as np

from onnxmorph.graph import Node, Shape
from onnxmorph.rules.table import Cost, Spec, Take, Write, axes_of, axis_of, letters, refuse, rule, with_term

OPEN_END = 2**31 - 1  # exporters write "to the end" as this or more


def _known_shape(node: Node) -> Shape:
    shape = node.in_shapes[0]
    return shape if shape is not None else ()


def concat(node: Node) -> Spec:
    """``a0 s0 a2, a0 s1 a2, ... -> a0 (s0 + s1 + ...) a2``, with as many parts as the node has."""
    if any(s is None for s in node.in_shapes):
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    names = letters(len(_known_shape(node)))
    axis = axis_of(node.attributes["axis"], len(names))
    parts = letters(len(node.inputs), "s")
    whole = parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
    return Spec(f"{', '.join(with_term(names, axis, p) for p in parts)} -> {with_term(names, axis, whole)}")


def split(node: Node) -> Spec:
    """``a0 (s0 + s1 + ...) a2, _ -> a0 s0 a2, a0 s1 a2, ...``, with as many parts as the node has."""
    if any(s is None for s in node.out_shapes) or node.in_shapes[0] is None:
        return refuse("unknown-shape", "the shape of an output cannot be inferred")
    names = letters(len(_known_shape(node)))
    axis = axis_of(node.attributes["axis"], len(names))
    parts = letters(len(node.outputs), "s")
    whole = parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
    sizes = {p: s[axis] for p, s in zip(parts, node.out_shapes, strict=True) if s is not None}
    return Spec(
        f"{with_term(names, axis, whole)}, _ -> {', '.join(with_term(names, axis, p) for p in parts)}",
        sizes,
        (Write("split", tuple(parts), instead_of="num_outputs", each_output=True),),
    )


def slice_(node: Node) -> Spec:
    """``a0 (p1 + a1 + q1), _, _, _, _ -> a0 a1``; every n-th is ``(a1 [t1])``; any other slice fixes its axis."""
    shape, out = _known_shape(node), node.out_shapes[0]
    starts, ends, axes, steps = (node.parameter(p) for p in ("starts", "ends", "axes", "steps"))
    along = axes_of(axes, len(shape)) if axes is not None else list(range(len(shape)))
    if out is None or along is None or (axes is None and node.input_index("axes") is not None):
        return refuse("dynamic", "its axes are not known before running")
    if starts is None or ends is None or (steps is None and node.input_index("steps") is not None):
        return Spec(
            f"{' '.join(f'[b{t}]' if t in along else f'a{t}' for t in range(len(shape)))}, _, _, _, _ -> "
            f"{' '.join(f'w{t}' if t in along else f'a{t}' for t in range(len(shape)))}"
        )
    starts, ends = np.asarray(starts).reshape(-1), np.asarray(ends).reshape(-1)
    strides = np.asarray(steps).reshape(-1) if steps is not None else np.ones(len(starts), int)
    before, after, sizes = letters(len(shape)), letters(len(shape)), dict[str, int]()
    start_entries: list[str | None] = [None] * len(starts)
    end_entries: list[str | None] = [None] * len(starts)
    for j, (axis, start, end, step) in enumerate(zip(along, starts, ends, strides, strict=False)):
        size, kept = shape[axis], out[axis]
        low = min(max(int(start) + (size if start < 0 else 0), 0), size)
        if step == 1 and start == 0 and end >= OPEN_END:
            continue
        if step == 1:
            sizes |= {f"p{axis}": low, f"q{axis}": size - low - kept, f"a{axis}": kept}
            before[axis] = f"(p{axis} + a{axis} + q{axis})"
            start_entries[j], end_entries[j] = f"p{axis}", f"(p{axis} + a{axis})"
        elif step > 1 and 0 <= start < step and kept * step == size and end >= size:
            sizes |= {f"a{axis}": kept, f"t{axis}": int(step)}
            before[axis] = f"(a{axis} [t{axis}])"
            end_entries[j] = None if end >= OPEN_END else f"(a{axis} t{axis})"
        else:
            before[axis], after[axis] = f"[b{axis}]", f"w{axis}"
    within = tuple(before[axis] for axis in along[: len(starts)])
    writes = tuple(
        Write(name, tuple(entries), within=within)
        for name, entries in (("starts", start_entries), ("ends", end_entries))
    )
    return Spec(f"{' '.join(before)}, _, _, _, _ -> {' '.join(after)}", sizes, writes)


def gather(node: Node) -> Spec:
    """``a0 a1 a2, _ -> a0 t a2``: rows by index. Constant indices pick positions, and those not picked may go.

    A single constant index keeps its position; indices that are computed, or form a matrix, keep all of them.
    """
    shape, index_shape, out = _known_shape(node), node.in_shapes[1], node.out_shapes[0]
    if index_shape is None or out is None:
        return refuse("unknown-shape", "the shape of its indices cannot be inferred")
    names = letters(len(shape))
    axis = axis_of(node.attributes["axis"], len(shape))
    index = node.known[1]
    if index is not None and index.ndim == 1:
        taken = np.where(index < 0, index + shape[axis], index).astype(np.int64)
        if ((taken < 0) | (taken >= shape[axis])).any():
            return refuse("index", "an index is out of range")
        result = with_term(names, axis, "t")
        return Spec(f"{' '.join(names)}, _ -> {result}", takes=(Take("t", names[axis], taken, "indices"),))
    if index is not None and index.ndim == 0:
        at = int(index) + (shape[axis] if index < 0 else 0)
        if not 0 <= at < shape[axis]:
            return refuse("index", "an index is out of range")
        sizes = {"p": at, "t": 1, "q": shape[axis] - at - 1}
        before, after = with_term(names, axis, "(p + [t] + q)"), " ".join(n for t, n in enumerate(names) if t != axis)
        return Spec(f"{before}, _ -> {after}", sizes, (Write("indices", ("p",)),))
    inner = " ".join(letters(len(index_shape), "i"))
    return Spec(f"{with_term(names, axis, f'[{names[axis]}]')}, {inner or '_'} -> {with_term(names, axis, inner)}")


def pad(node: Node) -> Spec:
    """``a0 a1 -> a0 (p1 + a1 + q1)``: positions that are added may go like others.

    An axis is fixed where positions are repeated or cut off.
    """
    pads, shape = node.parameter("pads"), _known_shape(node)
    axes = axes_of(node.parameter("axes"), len(shape))
    if pads is None or (axes is None and node.input_index("axes") is not None):
        return refuse("dynamic", "its pads are not known before running")
    mode = node.attributes.get("mode", "constant")
    axes = list(range(len(shape))) if axes is None else axes
    before, after, sizes = letters(len(shape)), letters(len(shape)), dict[str, int]()
    low = [int(p) for p in np.asarray(pads).reshape(-1)][: len(axes)]
    high = [int(p) for p in np.asarray(pads).reshape(-1)][len(axes) :]
    entries: list[str | None] = [None] * (2 * len(axes))
    fresh = []
    for j, axis in enumerate(axes):
        name = before[axis]
        if low[j] == high[j] == 0:
            continue
        if mode == "constant" and low[j] >= 0 and high[j] >= 0:
            sizes |= {name: shape[axis], f"p{axis}": low[j], f"q{axis}": high[j]}
            after[axis] = f"(p{axis} + {name} + q{axis})"
            entries[j], entries[len(axes) + j] = f"p{axis}", f"q{axis}"
            fresh += [f"p{axis}", f"q{axis}"]
        else:  # what is repeated, or cut off, depends on the positions
            before[axis], after[axis] = f"[{name}]", f"w{axis}"
    write = Write("pads", tuple(entries))
    return Spec(f"{' '.join(before)}, _, _, _ -> {' '.join(after)}", sizes, (write,), fresh=tuple(fresh))


def resize(node: Node) -> Spec:
    """``c0 c1 [y2] [y3], _, _, _ -> c0 c1 z2 z3``: axes that are resampled, or may be, are fixed."""
    shape, out = _known_shape(node), node.out_shapes[0]
    if out is None or len(out) != len(shape):
        return refuse("unknown-shape", "its output's shape cannot be inferred")
    listed = axes_of(node.parameter("axes"), len(shape)) or list(range(len(shape)))
    same = [t not in listed for t in range(len(shape))]
    scales = None if node.input_index("sizes") else node.sizes("scales")
    cropped = node.attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    stretched = node.attributes.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    whole = np.full(len(listed), bool(node.input_index("sizes"))) if scales is None else np.ravel(scales) == 1
    for t, one in zip(listed, whole, strict=False):  # equal sizes are not enough: 5 positions times 1.1 are 5 others
        same[t] = bool(one) and shape[t] == out[t] and stretched and not cropped
    before = [f"c{t}" if kept else f"[y{t}]" for t, kept in enumerate(same)]
    after = [f"c{t}" if kept else f"z{t}" for t, kept in enumerate(same)]
    writes = (Write("sizes", tuple(after[t] if same[t] else None for t in listed)),)
    return Spec(
        f"{' '.join(before)}, _, _, _ -> {' '.join(after)}",
        writes=writes if node.input_index("sizes") else (),
    )


def expand(node: Node) -> Spec:
    """``a2 1 a0, _ -> a2 a1 a0``: the positions that one is repeated to may go."""
    shape, out = _known_shape(node), node.out_shapes[0]
    target = node.partial[1]
    if out is None:
        return refuse("unknown-shape", "its output's shape cannot be inferred")
    before = [f"a{len(shape) - 1 - t}" for t in range(len(shape))]
    after = [f"a{len(out) - 1 - t}" for t in range(len(out))]
    offset = len(out) - len(shape)
    fresh = [] if target is None else [name for name, size in zip(after, out[:offset], strict=False) if size > 1]
    for t, size in enumerate(shape):
        if out[t + offset] != size:
            before[t] = "1"
            fresh += [] if target is None else [after[t + offset]]
    length = len(target) if target is not None else len(out)
    entries: list[str | None] = [None] * length
    if target is not None:
        for t in range(1, length + 1):
            if t <= len(out) and target[-t] != 1:
                entries[-t] = after[-t]
    write = Write("shape", tuple(entries))
    return Spec(f"{' '.join(before)}, _ -> {' '.join(after)}", writes=(write,), fresh=tuple(fresh))


def tile(node: Node) -> Spec:
    """``1 a1, _ -> r0 (r1 a1)``: an axis of several positions is repeated as it stands.

    How often is fixed; the positions that a single one is repeated to may go.
    """
    shape, out, repeats = node.in_shapes[0], node.out_shapes[0], node.partial[1]
    if shape is None or out is None:
        return refuse("unknown-shape", "the shape of the input or of the output cannot be inferred")
    single = [size == 1 and times > 1 and repeats is not None for size, times in zip(shape, out, strict=True)]
    before = ["1" if alone else f"a{t}" for t, alone in enumerate(single)]
    after = [f"r{t}" if alone else f"(r{t} a{t})" for t, alone in enumerate(single)]
    made = tuple(f"r{t}" if alone else None for t, alone in enumerate(single))
    fresh = tuple(name for name in made if name)
    return Spec(f"{' '.join(before)}, _ -> {' '.join(after)}", writes=(Write("repeats", made),), fresh=fresh)


rule("Concat", concat, keeps=True)
rule("Split", split, keeps=True)
rule("Slice", slice_, picks=True, keeps=True)
rule("Gather", gather, picks=True, keeps=True)
rule("Pad", pad)
rule("Expand", expand, keeps=True)
rule("Tile", tile, keeps=True)
rule("Resize Upsample", resize, Cost("c z"), keeps=True)
