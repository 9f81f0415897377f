"""Ops that only move positions: joining, cutting, picking, padding, resampling."""

from __future__ import annotations

import numpy as np

from onnxmorph.graph import Node, Shape
from onnxmorph.rules.table import Cost, Spec, Take, Write, axes_of, axis_of, letters, refuse, rule

OPEN_END = 2**31 - 1  # exporters write "to the end" as this or more


def _known_shape(node: Node) -> Shape:
    shape = node.in_shapes[0]
    return shape if shape is not None else ()


def _with(names: list[str], axis: int, term: str) -> str:
    return " ".join(term if t == axis else n for t, n in enumerate(names))


def concat(node: Node) -> Spec:
    if any(s is None for s in node.in_shapes):
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    names = letters(len(_known_shape(node)))
    axis = axis_of(node.attributes["axis"], len(names))
    parts = letters(len(node.inputs), "s")
    whole = parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
    return Spec(f"{', '.join(_with(names, axis, p) for p in parts)} -> {_with(names, axis, whole)}")


def split(node: Node) -> Spec:
    if any(s is None for s in node.out_shapes) or node.in_shapes[0] is None:
        return refuse("unknown-shape", "the shape of an output cannot be inferred")
    names = letters(len(_known_shape(node)))
    axis = axis_of(node.attributes["axis"], len(names))
    parts = letters(len(node.outputs), "s")
    whole = parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
    sizes = {p: s[axis] for p, s in zip(parts, node.out_shapes, strict=True) if s is not None}
    return Spec(
        f"{_with(names, axis, whole)}, _ -> {', '.join(_with(names, axis, p) for p in parts)}",
        sizes,
        (Write("split", tuple(parts), instead_of="num_outputs"),),
    )


def slice_(node: Node) -> Spec:
    """Contiguous: ``(before + kept + after)``; every n-th: ``(kept [step])``; anything else fixes the axis."""
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
    """Rows by index. Constant indices pick positions that may go; others need every position."""
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
        result = _with(names, axis, "t")
        return Spec(f"{' '.join(names)}, _ -> {result}", takes=(Take("t", names[axis], taken, "indices"),))
    inner = " ".join(letters(len(index_shape), "i"))
    return Spec(f"{_with(names, axis, f'[{names[axis]}]')}, {inner or '_'} -> {_with(names, axis, inner)}")


def pad(node: Node) -> Spec:
    pads, shape = node.parameter("pads"), _known_shape(node)
    if pads is None:
        return refuse("dynamic", "its pads are not known before running")
    mode = node.attributes.get("mode", "constant")
    axes = axes_of(node.parameter("axes"), len(shape)) or list(range(len(shape)))
    before, after, sizes = letters(len(shape)), letters(len(shape)), dict[str, int]()
    low = [int(p) for p in np.asarray(pads).reshape(-1)][: len(axes)]
    high = [int(p) for p in np.asarray(pads).reshape(-1)][len(axes) :]
    entries: list[str | None] = [None] * (2 * len(axes))
    fresh = []
    for j, axis in enumerate(axes):
        name = before[axis]
        if low[j] == high[j] == 0:
            continue
        if mode in ("constant", b"constant") and low[j] >= 0 and high[j] >= 0:
            sizes |= {name: shape[axis], f"p{axis}": low[j], f"q{axis}": high[j]}
            after[axis] = f"(p{axis} + {name} + q{axis})"
            entries[j], entries[len(axes) + j] = f"p{axis}", f"q{axis}"
            fresh += [f"p{axis}", f"q{axis}"]
        else:  # what is repeated, or cut off, depends on the positions
            before[axis], after[axis] = f"[{name}]", f"w{axis}"
    write = Write("pads", tuple(entries))
    return Spec(f"{' '.join(before)}, _, _, _ -> {' '.join(after)}", sizes, (write,), fresh=tuple(fresh))


def resize(node: Node) -> Spec:
    """Axes that keep their size pass; resampled ones are fixed."""
    shape, out = _known_shape(node), node.out_shapes[0]
    if out is None or len(out) != len(shape):
        return refuse("unknown-shape", "its output's shape cannot be inferred")
    same = [a == b for a, b in zip(shape, out, strict=True)]
    before = [f"c{t}" if kept else f"[y{t}]" for t, kept in enumerate(same)]
    after = [f"c{t}" if kept else f"z{t}" for t, kept in enumerate(same)]
    listed = axes_of(node.parameter("axes"), len(shape)) or list(range(len(shape)))
    writes = (Write("sizes", tuple(after[t] if same[t] else None for t in listed)),)
    return Spec(
        f"{' '.join(before)}, _, _, _ -> {' '.join(after)}",
        writes=writes if node.input_index("sizes") else (),
    )


def expand(node: Node) -> Spec:
    shape, out = _known_shape(node), node.out_shapes[0]
    target = node.partial[1]
    if out is None:
        return refuse("unknown-shape", "its output's shape cannot be inferred")
    before = [f"a{len(shape) - 1 - t}" for t in range(len(shape))]
    after = [f"a{len(out) - 1 - t}" for t in range(len(out))]
    offset = len(out) - len(shape)
    for t, size in enumerate(shape):
        if out[t + offset] != size:
            before[t] = "1"
    length = len(target) if target is not None else len(out)
    entries: list[str | None] = [None] * length
    if target is not None:
        for t in range(1, length + 1):
            if t <= len(out) and target[-t] != 1:
                entries[-t] = after[-t]
    return Spec(f"{' '.join(before)}, _ -> {' '.join(after)}", writes=(Write("shape", tuple(entries)),))


rule("Concat", concat, keeps=True)
rule("Split", split, keeps=True)
rule("Slice", slice_, keeps=True)
rule("Gather", gather, keeps=True)
rule("Pad", pad)
rule("Expand", expand, keeps=True)
rule("Resize Upsample", resize, Cost("c z"), keeps=True)
